# Annotations stay real objects in this module: FastAPI reads them.
"""The key page: its files, and the data that the management routes do not provide.

The page itself has no data and needs no credentials. Its scripts send the user's session to management routes of its
own below ``data/keys``, so it works wherever ``keys_router`` is mounted, or if it is not.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.security import SecurityScopes
from pydantic import BaseModel, Field, StringConstraints

from fastapi_keyauth.domain.pagination import MAX_PAGE, MAX_USAGE_HOURS
from fastapi_keyauth.domain.permissions import Caller
from fastapi_keyauth.domain.principals import ADMIN, ALL, KEYS_READ, KEYS_WRITE, SessionPrincipal
from fastapi_keyauth.domain.tokens import ID_LENGTH
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.http.dashboard.options import DashboardOptions
from fastapi_keyauth.http.dashboard.page import Page
from fastapi_keyauth.http.dependencies import RequireManager
from fastapi_keyauth.http.paths import path_in_app
from fastapi_keyauth.http.routers.callers import Callers, RequestAuthority
from fastapi_keyauth.http.routers.schemas import LimitOut, LimitStateOut, Moment
from fastapi_keyauth.http.routers.strict_json_route import strict_json_route
from fastapi_keyauth.keys.owners import Owners
from fastapi_keyauth.keys.queries import KeyQueries
from fastapi_keyauth.settings.settings import KeyAuthSettings

_RESERVED = {
    KEYS_READ: "List its owner's API keys, their usage and their history",
    KEYS_WRITE: "Create, update, rotate and revoke its owner's API keys",
    ADMIN: "Manage the API keys of every owner",
}
_KeyId = Annotated[str, StringConstraints(pattern=rf"^[0-9A-Za-z]{{{ID_LENGTH}}}$")]


class ScopeOut(BaseModel):
    """A scope that the caller may grant."""

    name: str
    description: str
    is_reserved: bool


class PolicyOut(BaseModel):
    """The policy for the lifetime of keys."""

    default_ttl_s: int | None = Field(description="Lifetime of a key that is created without an expiry.")
    max_ttl_s: int | None = Field(description="Maximum lifetime, from creation.")
    unused_after_days: int | None = Field(description="Days without use after which a key is disabled.")
    applies_to_all: bool = Field(description="Whether it also applies to keys created while no policy was set.")

    @classmethod
    def of(cls, settings: KeyAuthSettings) -> "PolicyOut | None":
        """Return the policy, or None if no rule is set."""
        if not settings.key_policy.is_set:
            return None
        return cls(
            default_ttl_s=settings.default_key_ttl_s,
            max_ttl_s=settings.max_key_ttl_s,
            unused_after_days=settings.disable_unused_after_days,
            applies_to_all=settings.key_policy.applies_to_all,
        )


class OptionsOut(BaseModel):
    """Choices that the page's forms offer to this caller."""

    user_id: str
    is_admin: bool
    acts_for_owners: bool = Field(description="Whether `owners_of` says which owners the caller may act for.")
    scopes: list[ScopeOut]
    grants_all: bool = Field(description="Whether the caller may grant `*`.")
    any_scope: bool = Field(description="Whether any name may be granted, because the setting `scopes` is empty.")
    default_environment: str
    default_hourly_limit: int | None
    default_limits: list[LimitOut] = Field(
        description="Limits of a key without limits of its own, beside the hourly one."
    )
    default_owner_limits: list[LimitOut] = Field(description="Limits of an owner without limits of its own.")
    units: list[str] = Field(description="What limits can count.")
    limit_is_bound: bool = Field(description="Whether the default is also the maximum for this caller.")
    max_keys: int
    policy: PolicyOut | None
    header_name: str
    key_prefix: str = Field(description="Start of every token, by which the page recognizes a pasted one.")


class UsageOfKeyOut(BaseModel):
    """Requests of a key per hour, oldest first, including empty hours."""

    id: str
    admitted: list[int]
    refused: list[int]


class UsageOfKeysOut(BaseModel):
    """Usage of many keys. Keys without requests, and keys that the caller may not see, are left out."""

    first_hour: Moment
    items: list[UsageOfKeyOut]
    suspended_owners: list[str] = Field(description="Owners of these keys that are suspended.")


def build_dashboard_router(
    options: DashboardOptions,
    keys_router: APIRouter,
    queries: KeyQueries,
    owners: Owners,
    settings: KeyAuthSettings,
    manager: RequireManager,
    callers: Callers,
) -> APIRouter:
    """Build ``auth.dashboard_router``. Its routes are not in the schema: programs use ``keys_router``."""
    router = APIRouter(include_in_schema=False, tags=["API key page"])
    page = Page(options)

    # Both, without a redirect between them: it would name a host and a scheme that a proxy may have changed.
    @router.get("")
    @router.get("/")
    async def read_page(request: Request) -> Response:
        """Return the page, without data."""
        return page.page(path_in_app(request.scope))

    @router.get("/assets/{version}/{name:path}")
    async def read_file(version: str, name: Annotated[str, Path(max_length=100)]) -> Response:
        """Return a file of the page."""
        found = page.file(version, name)
        if found is None:
            raise HTTPException(404)
        return found

    router.include_router(_build_data_router(queries, owners, settings, manager, callers), prefix="/data")
    router.include_router(keys_router, prefix="/data/keys")
    return router


def _build_data_router(
    queries: KeyQueries, owners: Owners, settings: KeyAuthSettings, manager: RequireManager, callers: Callers
) -> APIRouter:
    """Build the routes that only the page needs, for the callers of the management routes and with their view."""

    async def find_reader(
        by: Annotated[RequestAuthority, Depends(callers.having(KEYS_READ, manager))],
    ) -> Caller:
        return by.caller

    async def authenticate(request: Request) -> object:
        return await manager(request, SecurityScopes([KEYS_READ]))

    reader = Annotated[Caller, Depends(find_reader)]
    router = APIRouter(route_class=strict_json_route(authenticate))

    @router.get("/options")
    async def read_options(caller: reader) -> OptionsOut:
        """Return the choices of this caller."""
        named = settings.scopes or dict.fromkeys(sorted(caller.principal.scopes), "")
        offered = {**named, **_RESERVED}
        return OptionsOut(
            user_id=_user_of(caller),
            is_admin=caller.is_admin,
            acts_for_owners=caller.names_owners,
            scopes=[
                ScopeOut(name=name, description=description, is_reserved=name in _RESERVED)
                for name, description in offered.items()
                if name != ALL and caller.may_grant(name)
            ],
            grants_all=caller.may_grant(ALL),
            any_scope=not settings.scopes and caller.may_grant(ALL),
            default_environment=settings.default_environment,
            default_hourly_limit=settings.default_hourly_limit,
            default_limits=[LimitOut.model_validate(limit) for limit in caller.rules.defaults if limit.counter_id],
            default_owner_limits=[LimitOut.model_validate(limit) for limit in caller.rules.of_owner(None)],
            units=[REQUESTS, *settings.units],
            limit_is_bound=settings.default_hourly_limit is not None and not caller.is_admin,
            max_keys=settings.max_keys_per_owner,
            policy=PolicyOut.of(settings),
            header_name=settings.header_name,
            key_prefix=settings.key_prefix,
        )

    @router.get("/usage")
    async def read_usage_of_keys(
        caller: reader,
        ids: Annotated[list[_KeyId], Query(min_length=1, max_length=MAX_PAGE)],
        hours: Annotated[int, Query(ge=1, le=MAX_USAGE_HOURS)] = 24,
    ) -> UsageOfKeysOut:
        """Return the usage of a page of keys, in one SQL statement, and which of their owners are suspended."""
        readable, turn = caller.find_owners(KEYS_READ), _user_of(caller)
        first_hour, found = await queries.usage_of_many(ids, hours, readable, turn)
        return UsageOfKeysOut(
            first_hour=first_hour,
            items=[
                UsageOfKeyOut(id=id, admitted=[a for a, _ in counts], refused=[r for _, r in counts])
                for id, counts in found.items()
            ],
            suspended_owners=await owners.find_suspended(ids, readable, turn),
        )

    @router.get("/limits/{id}")
    async def read_limits_of_key(id: _KeyId, caller: reader) -> list[LimitStateOut]:
        """Return the limits of a key and of its owner, and what is left of them. Charges nothing."""
        turn = _user_of(caller)
        key = await queries.get(id, caller.find_owners(KEYS_READ), turn)
        return [LimitStateOut.model_validate(state) for state in await owners.find_limit_states(key, turn)]

    return router


def _user_of(caller: Caller) -> str:
    """Return the user whose session calls, or the owner of the calling key."""
    principal = caller.principal
    return principal.user_id if isinstance(principal, SessionPrincipal) else principal.owner_id
