# Annotations stay real objects in this module: FastAPI reads them.
"""The routes of usage, below the prefix of the management routes."""

import json
from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import SecurityScopes
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from fastapi_keyauth.domain.principals import ADMIN, KEYS_READ
from fastapi_keyauth.domain.usage import MAX_BATCH_ITEMS, By, UsageBatch, UsageItem, date_of
from fastapi_keyauth.domain.usage_formats import UsageCsv, item_as_json
from fastapi_keyauth.domain.validation import OwnerId
from fastapi_keyauth.http.dependencies import RequireManager
from fastapi_keyauth.http.routers.callers import Callers, RequestAuthority
from fastapi_keyauth.http.routers.strict_json_route import strict_json_route
from fastapi_keyauth.keys.usage_reports import MAX_AFTER, UsageReports

_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"description": "The key does not exist, or the caller may not see it"}
}
_CHUNK = 16_384
"""Number of characters of a response that are sent together."""


class UsageItemOut(BaseModel):
    """Usage of a day, a month, a key or a unit."""

    model_config = ConfigDict(from_attributes=True)

    day: date | None = Field(None, description="In a report by day.")
    month: str | None = Field(None, description="In a report by month, such as `2026-11`.")
    key_id: str | None = Field(None, description="In a report by key.")
    unit: str | None = Field(None, description="In a report by unit.")
    units: dict[str, int] = Field(description="Unit to the number of units that were used.")
    refused: int = Field(description="Refused requests with a correct secret.")
    closed: bool = Field(description="Whether the numbers are final.")


class UsageReportOut(BaseModel):
    """Usage in a range of days."""

    items: list[UsageItemOut]


class UsageBatchItemOut(BaseModel):
    """The units of a key on a closed day."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Never changes, and grows from item to item.")
    day: date
    owner_id: str
    key_id: str
    unit: str
    units: int


class UsageBatchOut(BaseModel):
    """Some closed days."""

    model_config = ConfigDict(from_attributes=True)

    items: list[UsageBatchItemOut]
    next_after: int | None = Field(description="The id of the last item; null if there are no items.")


_REPORT: dict[int | str, dict[str, Any]] = {
    200: {"model": UsageReportOut, "content": {"text/csv": {"schema": {"type": "string"}}}}
}


def build_usage_router(usage: UsageReports, manager: RequireManager, callers: Callers) -> APIRouter:
    """Build the routes at and below ``/usage``."""

    async def authenticate(request: Request) -> object:
        scope = ADMIN if request.scope["path"].endswith("/batches") else KEYS_READ
        return await manager(request, SecurityScopes([scope]))

    router = APIRouter(route_class=strict_json_route(authenticate), tags=["API keys"])

    @router.get("/usage", responses=_NOT_FOUND | _REPORT, response_class=StreamingResponse)
    async def report_usage(
        caller: Annotated[RequestAuthority, Depends(callers.having(KEYS_READ, manager))],
        from_: Annotated[
            str | None,
            Query(alias="from", max_length=20, description="First day (UTC). Default: the first of this month."),
        ] = None,
        to: Annotated[
            str | None, Query(max_length=20, description="Day after the last one. Default: tomorrow.")
        ] = None,
        by: Annotated[By, Query(description="Grouping of the items.")] = "day",
        owner_id: Annotated[
            OwnerId | None, Query(description="For `admin`, and for members of several owners.")
        ] = None,
        key_id: Annotated[str | None, Query(max_length=100, description="Only this key.")] = None,
        format: Annotated[Literal["json", "csv"], Query(description="Format of the response.")] = "json",
    ) -> StreamingResponse:
        """Report usage by day, month, key or unit. An item that is not closed may still change."""
        if owner_id is None and key_id is not None:
            owner_ids = caller.readable_owner_ids  # the key has one owner
        else:
            owner_ids = caller.caller.choose_owners(owner_id)
        range_ = usage.find_range(from_, to)
        items = usage.stream(range_, by, owner_ids, key_id, caller.turn)
        if format == "json":
            return StreamingResponse(await _begin(write_json(items, by)), media_type="application/json")
        lines = UsageCsv(by, await usage.find_units(range_, owner_ids, key_id, caller.turn))
        name = f"usage-{date_of(range_.first)}-{date_of(range_.end)}-{by}.csv"
        return StreamingResponse(
            await _begin(write_csv(items, lines)),
            media_type="text/csv; charset=utf-8; header=present",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    @router.get("/usage/batches", response_model=UsageBatchOut)
    async def list_usage_batches(
        caller: Annotated[RequestAuthority, Depends(callers.admin(manager))],
        after: Annotated[int, Query(ge=0, le=MAX_AFTER, description="The last id that was exported.")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_BATCH_ITEMS, description="Items in the batch.")] = MAX_BATCH_ITEMS,
    ) -> UsageBatch:
        """Hand out closed days in the order of ids that never change, for exports that must not count twice."""
        return await usage.batches(after, limit, caller.turn)

    return router


async def write_json(items: AsyncIterator[UsageItem], by: By) -> AsyncIterator[str]:
    """Yield the parts of a report in JSON."""
    before = '{"items":['
    async for item in items:
        yield before + json.dumps(item_as_json(item, by), separators=(",", ":"))
        before = ","
    yield ("" if before == "," else before) + "]}"


async def write_csv(items: AsyncIterator[UsageItem], lines: UsageCsv) -> AsyncIterator[str]:
    """Yield the lines of a report in CSV."""
    yield lines.header()
    async for item in items:
        yield lines.row(item)


async def _begin(parts: AsyncIterator[str]) -> AsyncIterator[str]:
    """Return the parts in chunks. The first one is read now, so that a failure still becomes a response of its own.

    A later failure breaks the response off, which clients notice: it lacks its last chunk.
    """
    chunks = _join(parts)
    first = await anext(chunks)
    return _chain(first, chunks)


async def _join(parts: AsyncIterator[str]) -> AsyncIterator[str]:
    chunk: list[str] = []
    size = 0
    async for part in parts:
        chunk.append(part)
        size += len(part)
        if size >= _CHUNK:
            yield "".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield "".join(chunk)


async def _chain(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for chunk in rest:
        yield chunk
