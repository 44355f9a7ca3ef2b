# Annotations stay real objects in this module: FastAPI reads them.
"""The routes of owners, below the prefix of the management routes."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.security import SecurityScopes
from pydantic import BaseModel, ConfigDict, Field

from fastapi_keyauth.domain.fields import OwnerFields
from fastapi_keyauth.domain.owners import Erasure, Owner
from fastapi_keyauth.domain.principals import KEYS_READ, KEYS_WRITE, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.domain.validation import Reason
from fastapi_keyauth.http.dependencies import RequireKey, RequireManager, RequireSession
from fastapi_keyauth.http.routers.callers import Callers, RequestAuthority
from fastapi_keyauth.http.routers.schemas import LimitStateOut, Moment
from fastapi_keyauth.http.routers.strict_json_route import strict_json_route
from fastapi_keyauth.keys.owners import Owners

_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "The caller may not act for this owner"}}


class KeyCountsOut(BaseModel):
    """Number of keys by status."""

    model_config = ConfigDict(from_attributes=True)

    active: int
    disabled: int
    expired: int
    revoked: int


class OwnerOut(BaseModel):
    """An owner of keys."""

    model_config = ConfigDict(from_attributes=True)

    owner_id: str
    name: str | None
    suspended_at: Moment | None = Field(description="When it was suspended; null: it is not suspended.")
    reason: str | None = Field(description="Why it was suspended.")
    limits: list[LimitStateOut] = Field(description="The limits of all its keys together, and what is left of them.")
    keys: KeyCountsOut


class OwnPermissionsOut(BaseModel):
    """An owner that the caller may act for."""

    owner_id: str
    name: str | None
    permissions: list[str] = Field(description="`keys:read`, `keys:write` or both.")


class OwnersOut(BaseModel):
    """The owners that the caller may act for."""

    items: list[OwnPermissionsOut]


class CurrentOwnerOut(BaseModel):
    """The owner of the calling key."""

    owner_id: str
    limits: list[LimitStateOut]


class ReasonIn(BaseModel):
    """Reason of a change."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    reason: Reason | None = Field(None, description="Reason, for the history.")


class RevokedOut(BaseModel):
    """Result of a revocation."""

    revoked: int = Field(description="Number of keys that were revoked.")


class ErasedOut(BaseModel):
    """Result of an erasure."""

    model_config = ConfigDict(from_attributes=True)

    keys: int = Field(description="Number of keys that were revoked or made anonymous.")
    sessions: int = Field(description="Number of sessions that were ended and deleted.")
    events: int = Field(description="Number of history entries that were made anonymous.")
    owners: int = Field(description="1 if something was set for the owner.")
    usage: int = Field(description="Number of keys on closed days whose owner was replaced.")
    rows: int = Field(description="Sum of these numbers.")


def build_owners_router(
    owners: Owners, require_key: RequireKey, require_session: RequireSession, manager: RequireManager, callers: Callers
) -> APIRouter:
    """Build the routes below ``/owners``."""

    require_free_key = require_key.at_cost(())

    async def authenticate(request: Request) -> object:
        path = request.scope["path"]
        if request.method == "GET" and path.endswith("/owners/current"):
            return await require_free_key(request, SecurityScopes())
        if request.method == "GET" and path.endswith("/owners"):
            return await require_session(request, SecurityScopes())
        return await manager(request, SecurityScopes([KEYS_READ if request.method == "GET" else KEYS_WRITE]))

    reader = Annotated[RequestAuthority, Depends(callers.having(KEYS_READ, manager))]
    writer = Annotated[RequestAuthority, Depends(callers.having(KEYS_WRITE, manager))]
    admin = Annotated[RequestAuthority, Depends(callers.admin(manager))]
    why = Annotated[ReasonIn | None, Body()]
    router = APIRouter(route_class=strict_json_route(authenticate), tags=["API keys"])

    def for_admin(by: RequestAuthority) -> Owners:
        def check() -> None:
            by.caller.check_admin()

        return owners.on_behalf_of(by, check)

    @router.get("/owners")
    async def list_owners(
        session: Annotated[SessionPrincipal, Depends(require_session)], request: Request
    ) -> OwnersOut:
        """List the owners that the session may act for."""
        by = await callers.find(session, request)
        names = await owners.on_behalf_of(by).names(by.caller.owners)
        return OwnersOut(
            items=[
                OwnPermissionsOut(owner_id=owner_id, name=names.get(owner_id), permissions=sorted(permissions))
                for owner_id, permissions in sorted(by.caller.owners.items())
            ]
        )

    @router.get("/owners/current")
    async def read_current_owner(
        key: Annotated[KeyPrincipal, Depends(require_free_key)], request: Request
    ) -> CurrentOwnerOut:
        """Return the limits of the calling key's owner, and what is left of them. Charges nothing."""
        by = await callers.find(key, request)
        owner = await owners.on_behalf_of(by).get(key.owner_id)
        limits = [LimitStateOut.model_validate(limit) for limit in owner.limits]
        return CurrentOwnerOut(owner_id=owner.owner_id, limits=limits)

    @router.post("/owners/{owner_id:path}/suspend", response_model=OwnerOut)
    async def suspend_owner(owner_id: str, by: admin, body: why = None) -> Owner:
        """Refuse every key of the owner, on all workers."""
        return await for_admin(by).suspend(owner_id, body.reason if body else None)

    @router.post("/owners/{owner_id:path}/resume", response_model=OwnerOut)
    async def resume_owner(owner_id: str, by: admin, body: why = None) -> Owner:
        """End the suspension of the owner."""
        return await for_admin(by).resume(owner_id, body.reason if body else None)

    @router.post("/owners/{owner_id:path}/revoke-keys", responses=_NOT_FOUND)
    async def revoke_keys_of_owner(owner_id: str, by: writer, body: why = None) -> RevokedOut:
        """Revoke all keys of the owner, on all workers."""

        def check() -> None:
            by.caller.check_permission(owner_id, KEYS_WRITE)

        check()
        reason = body.reason if body else None
        return RevokedOut(revoked=await owners.on_behalf_of(by, check).revoke_keys(owner_id, reason=reason))

    @router.get("/owners/{owner_id:path}", responses=_NOT_FOUND, response_model=OwnerOut)
    async def read_owner(owner_id: str, by: reader) -> Owner:
        """Return one owner."""
        by.caller.check_permission(owner_id, KEYS_READ)
        return await owners.on_behalf_of(by).get(owner_id)

    @router.put("/owners/{owner_id:path}", response_model=OwnerOut)
    async def set_owner(owner_id: str, fields: OwnerFields, by: admin) -> Owner:
        """Set the limits or the name of the owner. Omitted fields stay unchanged."""
        return await for_admin(by).set(owner_id, **fields.sent_fields())

    @router.delete("/owners/{owner_id:path}", response_model=ErasedOut)
    async def erase_owner(
        owner_id: str,
        by: admin,
        reason: Annotated[Reason | None, Query(description="Reason, for the log: the history keeps none.")] = None,
    ) -> Erasure:
        """Revoke the owner's keys and sessions and remove everything personal, permanently."""
        return await for_admin(by).erase(owner_id, reason)

    return router
