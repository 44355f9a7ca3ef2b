# Annotations stay real objects in this module: FastAPI reads them.
"""The management routes."""

from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.security import SecurityScopes

from fastapi_keyauth.domain.audit import AuditPage
from fastapi_keyauth.domain.bounds import Bounds
from fastapi_keyauth.domain.fields import KeyPatch, NewKey
from fastapi_keyauth.domain.keys import EventPage, Key, KeyPage, Status
from fastapi_keyauth.domain.limits import check_units
from fastapi_keyauth.domain.pagination import MAX_PAGE, MAX_UNUSED_DAYS, MAX_USAGE_HOURS
from fastapi_keyauth.domain.principals import KEYS_READ, KEYS_WRITE, KeyPrincipal
from fastapi_keyauth.domain.validation import OwnerId, Reason
from fastapi_keyauth.http.dependencies import RequireKey, RequireManager, RequireSession
from fastapi_keyauth.http.routers.callers import Callers, RequestAuthority
from fastapi_keyauth.http.routers.owners import build_owners_router
from fastapi_keyauth.http.routers.schemas import (
    AuditPageOut,
    CreatedKeyOut,
    CurrentKeyOut,
    EventPageOut,
    KeyOut,
    KeyPageOut,
    RotateIn,
    UsageHourOut,
    UsageOut,
)
from fastapi_keyauth.http.routers.strict_json_route import strict_json_route
from fastapi_keyauth.http.routers.usage import build_usage_router
from fastapi_keyauth.keys.audit import KeyAudit
from fastapi_keyauth.keys.management import KeyManagement
from fastapi_keyauth.keys.owners import Owners
from fastapi_keyauth.keys.queries import KeyQueries
from fastapi_keyauth.keys.usage_reports import UsageReports
from fastapi_keyauth.settings.settings import KeyAuthSettings

# http/openapi.py adds their bodies.
_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"description": "The key does not exist, or it belongs to another owner"}
}
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "The status of the key does not allow this, or the owner has the maximum number of keys"}
}
_Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items on a page.")]
_Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the previous page.")]
_Reason = Annotated[Reason | None, Query(description="Reason, for the key's history.")]


def build_keys_router(
    management: KeyManagement,
    queries: KeyQueries,
    audit: KeyAudit,
    owners: Owners,
    usage: UsageReports,
    settings: KeyAuthSettings,
    require_key: RequireKey,
    require_session: RequireSession,
    manager: RequireManager,
    callers: Callers,
) -> APIRouter:
    """Build the router ``auth.keys_router``.

    Each route authenticates, checks the caller's permissions (``domain/permissions.py``) and reads or changes keys.
    """

    async def authenticate(request: Request) -> object:
        if request.method != "GET":
            return await manager(request, SecurityScopes([KEYS_WRITE]))
        # Not ``request.url``: that fails over a query which is not UTF-8.
        if request.scope["path"].endswith("/current"):
            return await require_key(request, SecurityScopes())
        return await manager(request, SecurityScopes([KEYS_READ]))

    reader = Annotated[RequestAuthority, Depends(callers.having(KEYS_READ, manager))]
    writer = Annotated[RequestAuthority, Depends(callers.having(KEYS_WRITE, manager))]
    router = APIRouter(route_class=strict_json_route(authenticate), tags=["API keys"])

    async def check_read(id: str, by: RequestAuthority) -> None:
        """Refuse to read the key of an owner for which the caller only has ``keys:write``. Other keys are found."""
        if by.writes_unread_owners:
            by.caller.check_permission((await queries.get(id, by.owner_ids, by.turn)).owner_id, KEYS_READ)

    # First: `/owners` and `/usage` are not the ids of keys.
    router.include_router(build_owners_router(owners, require_key, require_session, manager, callers))
    router.include_router(build_usage_router(usage, manager, callers))

    @router.post("", status_code=201, responses=_CONFLICT)
    async def create_key(new: NewKey, by: writer, request: Request, response: Response) -> CreatedKeyOut:
        """Create a key. The response contains its token, which is shown only here."""
        check_units(new.limits or (), settings.units)  # before permissions, as all that is invalid
        new = by.caller.complete(new, settings.default_environment, management.now(), management.policy)
        by.caller.check_new(new)
        created = await management.create(
            new, new.owner_id or "", by, settings.max_keys_per_owner, lambda: by.caller.check_new(new)
        )
        response.headers["Location"] = f"{quote(request.scope['path'].rstrip('/'))}/{created.key.id}"
        return CreatedKeyOut.of(created)

    @router.get("", response_model=KeyPageOut)
    async def list_keys(
        by: reader,
        owner_id: Annotated[
            OwnerId | None, Query(description="For `admin`, and for members of several owners.")
        ] = None,
        status: Annotated[Status | None, Query()] = None,
        q: Annotated[str | None, Query(max_length=200, description="Part of the name, or an id or a hint.")] = None,
        created_by: Annotated[
            str | None, Query(max_length=300, description="The actor that created it, such as `user:<id>`.")
        ] = None,
        unused_for_days: Annotated[int | None, Query(ge=0, le=MAX_UNUSED_DAYS)] = None,
        cursor: _Cursor = None,
        limit: _Limit = 50,
        include_revoked: Annotated[bool, Query(description="`false` leaves out revoked keys.")] = True,
    ) -> KeyPage:
        """List keys, newest first."""
        owners = by.caller.choose_owners(owner_id)
        return await queries.list(
            owners, status, q, unused_for_days, cursor, limit, include_revoked, created_by, by.turn
        )

    @router.get("/current")
    async def read_current_key(key: Annotated[KeyPrincipal, Depends(require_key)]) -> CurrentKeyOut:
        """Return the calling key, by its own token alone."""
        return CurrentKeyOut.of(await queries.get(key.id, turn=key.owner_id), key)

    @router.get("/audit", response_model=AuditPageOut)
    async def audit_keys(
        by: reader,
        owner_id: Annotated[
            OwnerId | None, Query(description="For `admin`, and for members of several owners.")
        ] = None,
        cursor: _Cursor = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Keys on a page.")] = MAX_PAGE,
    ) -> AuditPage:
        """Return what a security review would ask about the active keys, those of the newest key first."""
        return await audit.find_page(by.caller.choose_owners(owner_id), cursor, limit, by.turn)

    @router.get("/{id}", responses=_NOT_FOUND, response_model=KeyOut)
    async def read_key(id: str, by: reader) -> Key:
        """Return one key."""
        await check_read(id, by)
        return await queries.get(id, by.readable_owner_ids, by.turn)

    @router.patch("/{id}", responses=_NOT_FOUND | _CONFLICT, response_model=KeyOut)
    async def change_key(id: str, patch: KeyPatch, by: writer) -> Key:
        """Change the fields that are sent. The change takes effect immediately, on all workers."""
        changes = patch.sent_fields()

        def check(key: Key) -> None:
            by.caller.check_change(key)
            if "exempt_from_policy" in changes:
                by.caller.check_admin()
            by.caller.check_scopes(changes.get("scopes", ()))
            if "hourly_limit" in changes and changes.get("limits") is None:
                by.caller.limit_bounds.check_hourly(changes["hourly_limit"])

        def check_result(key: Key) -> None:
            by.caller.check_bounds(Bounds.of(key))
            if "limits" in changes or "hourly_limit" in changes:
                by.caller.limit_bounds.check(key.limits)

        return await management.patch(id, patch, by, check, check_result)

    @router.post("/{id}/rotate", status_code=201, responses=_NOT_FOUND | _CONFLICT)
    async def rotate_key(id: str, by: writer, rotation: Annotated[RotateIn | None, Body()] = None) -> CreatedKeyOut:
        """Give the key a new secret. The old one works until the overlap ends."""
        rotation = rotation or RotateIn()
        overlap = timedelta(seconds=rotation.overlap_s)

        def check(key: Key) -> None:
            by.caller.check_change(key)

        return CreatedKeyOut.of(await management.rotate(id, overlap, by, check, rotation.reason))

    @router.delete("/{id}", status_code=204, response_class=Response, responses=_NOT_FOUND)
    async def revoke_key(
        id: str,
        by: writer,
        reason: _Reason = None,
        include_created: Annotated[
            bool, Query(description="Revoke also the keys that it created, those that they created, and so on.")
        ] = False,
    ) -> None:
        """Revoke the key permanently, and immediately on all workers. Revoking it again changes nothing."""

        def check(key: Key) -> None:
            by.caller.check_permission(key.owner_id, KEYS_WRITE)

        await management.revoke(id, by, check, reason, include_created=include_created)

    @router.get("/{id}/usage", responses=_NOT_FOUND)
    async def read_usage(id: str, by: reader, hours: Annotated[int, Query(ge=1, le=MAX_USAGE_HOURS)] = 24) -> UsageOut:
        """Return the usage in each of the last hours, oldest first."""
        await check_read(id, by)
        found = await queries.usage(id, hours, by.readable_owner_ids, by.turn)
        return UsageOut(items=[UsageHourOut.model_validate(hour) for hour in found])

    @router.get("/{id}/events", responses=_NOT_FOUND, response_model=EventPageOut)
    async def list_events(id: str, by: reader, cursor: _Cursor = None, limit: _Limit = 50) -> EventPage:
        """Return the key's history: what was done, by whom, from where, when and why; newest first."""
        await check_read(id, by)
        owners = by.readable_owner_ids
        return await queries.events(id, cursor, limit, owners, by.turn, shows_admin_addresses=by.caller.is_admin)

    return router
