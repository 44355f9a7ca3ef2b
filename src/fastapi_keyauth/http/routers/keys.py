# Annotations stay real objects in this module: FastAPI reads them.
"""The management routes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Query, Request, Response, Security
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from fastapi_keyauth.domain.ip_addresses import ClientAddress
from fastapi_keyauth.domain.keys import Actor, EventPage, Key, KeyPage, Status
from fastapi_keyauth.domain.pagination import MAX_PAGE, MAX_USAGE_HOURS
from fastapi_keyauth.domain.permissions import Caller
from fastapi_keyauth.domain.principals import KEYS_READ, KEYS_WRITE, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.domain.validation import KeyPatch, NewKey, OwnerId
from fastapi_keyauth.http.dependencies import RequireKey, RequireManager
from fastapi_keyauth.http.routers.schemas import (
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
from fastapi_keyauth.keys.service import Keys
from fastapi_keyauth.settings.settings import KeyAuthSettings

_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "No such key among those the caller may see"}}
_CONFLICT: dict[int | str, dict[str, Any]] = {409: {"description": "The key is not active, or there are too many"}}
_Principal = KeyPrincipal | SessionPrincipal
_Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items on a page.")]


def build_keys_router(
    keys: Keys,
    settings: KeyAuthSettings,
    require_key: RequireKey,
    manager: RequireManager,
    client_address: Callable[[HTTPConnection], ClientAddress | None],
) -> APIRouter:
    """The router ``auth.keys_router``.

    Each route authenticates, checks the caller's permissions (``domain/permissions.py``) and calls ``auth.keys``.
    """

    def caller_of(principal: _Principal) -> Caller:
        return Caller.of(principal, settings.default_hourly_limit)

    async def find_reader(principal: Annotated[_Principal, Security(manager, scopes=[KEYS_READ])]) -> Caller:
        return caller_of(principal)

    async def find_writer(principal: Annotated[_Principal, Security(manager, scopes=[KEYS_WRITE])]) -> Caller:
        return caller_of(principal)

    async def authenticate(request: Request) -> object:
        if request.method != "GET":
            return await manager(request, SecurityScopes([KEYS_WRITE]))
        # Not ``request.url``: that fails over a query which is no UTF-8.
        if request.scope["path"].endswith("/current"):
            return await require_key(request, SecurityScopes())
        return await manager(request, SecurityScopes([KEYS_READ]))

    def actor_of(caller: Caller, request: Request) -> Actor:
        address = client_address(request)
        return caller.actor(None if address is None else address.text)

    reader = Annotated[Caller, Depends(find_reader)]
    writer = Annotated[Caller, Depends(find_writer)]
    router = APIRouter(route_class=strict_json_route(authenticate), tags=["API keys"])

    @router.post("", status_code=201, responses=_CONFLICT)
    async def create_key(new: NewKey, caller: writer, request: Request, response: Response) -> CreatedKeyOut:
        """Make a key. The answer holds its token, which is shown only here."""
        caller.check_owner(new.owner_id)
        scopes = caller.grantable_by_default() if new.scopes is None else new.scopes
        caller.check_scopes(scopes)
        limit = caller.limit_by_default() if new.hourly_limit is None else new.hourly_limit
        caller.check_limit(limit)
        created = await keys.add(
            new,
            new.owner_id or caller.owner_id,
            scopes,
            limit,
            actor_of(caller, request),
            settings.max_keys_per_owner,
        )
        response.headers["Location"] = f"{quote(request.scope['path'].rstrip('/'))}/{created.key.id}"
        return CreatedKeyOut.of(created)

    @router.get("", response_model=KeyPageOut)
    async def list_keys(
        caller: reader,
        owner_id: Annotated[OwnerId | None, Query(description="For callers with the scope `admin` alone.")] = None,
        status: Annotated[Status | None, Query()] = None,
        q: Annotated[str | None, Query(max_length=100, description="Part of the name.")] = None,
        unused_for_days: Annotated[int | None, Query(ge=0, le=36_500)] = None,
        cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
        limit: _Limit = 50,
        include_revoked: Annotated[bool, Query(description="`false` leaves out revoked keys.")] = True,
    ) -> KeyPage:
        """Keys, newest first."""
        caller.check_owner(owner_id)
        owner = owner_id if caller.is_admin else caller.owner_id
        return await keys.list(owner, status, q, unused_for_days, cursor, limit, include_revoked)

    @router.get("/current")
    async def read_current_key(key: Annotated[KeyPrincipal, Depends(require_key)]) -> CurrentKeyOut:
        """The calling key, by its own token alone."""
        return CurrentKeyOut.of(await keys.get(key.id), key.remaining, key.reset_at)

    @router.get("/{id}", responses=_NOT_FOUND, response_model=KeyOut)
    async def read_key(id: str, caller: reader) -> Key:
        """One key."""
        return await keys.get(id, caller.visible_owner_id)

    @router.patch("/{id}", responses=_NOT_FOUND | _CONFLICT, response_model=KeyOut)
    async def change_key(id: str, patch: KeyPatch, caller: writer, request: Request) -> Key:
        """Change the fields that are sent. It holds at once, everywhere."""
        changes = patch.sent_fields()

        def check(key: Key) -> None:
            caller.check_change(key)
            caller.check_scopes(changes.get("scopes", ()))
            if "hourly_limit" in changes:
                caller.check_limit(changes["hourly_limit"])

        return await keys.patch(id, patch, actor_of(caller, request), caller.visible_owner_id, check)

    @router.post("/{id}/rotate", status_code=201, responses=_NOT_FOUND | _CONFLICT)
    async def rotate_key(
        id: str,
        caller: writer,
        request: Request,
        rotation: Annotated[RotateIn | None, Body()] = None,
    ) -> CreatedKeyOut:
        """Give the key a new secret. The old one works until the overlap ends."""
        overlap = timedelta(seconds=(rotation or RotateIn()).overlap_s)
        created = await keys.replace_secret(
            id, overlap, actor_of(caller, request), caller.visible_owner_id, caller.check_change
        )
        return CreatedKeyOut.of(created)

    @router.delete("/{id}", status_code=204, response_class=Response, responses=_NOT_FOUND)
    async def revoke_key(id: str, caller: writer, request: Request) -> None:
        """Revoke the key, for good. It holds at once, everywhere; a second time changes nothing."""
        await keys.revoke(id, actor_of(caller, request), caller.visible_owner_id)

    @router.get("/{id}/usage", responses=_NOT_FOUND)
    async def read_usage(
        id: str, caller: reader, hours: Annotated[int, Query(ge=1, le=MAX_USAGE_HOURS)] = 24
    ) -> UsageOut:
        """Requests in each of the last hours, oldest first."""
        found = await keys.usage(id, hours, caller.visible_owner_id)
        return UsageOut(items=[UsageHourOut.model_validate(hour) for hour in found])

    @router.get("/{id}/events", responses=_NOT_FOUND, response_model=EventPageOut)
    async def list_events(
        id: str,
        caller: reader,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
        limit: _Limit = 50,
    ) -> EventPage:
        """What was done to the key, by whom, from where and when; newest first."""
        return await keys.events(id, cursor, limit, caller.visible_owner_id)

    return router
