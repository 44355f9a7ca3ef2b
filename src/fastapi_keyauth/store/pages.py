"""Pages of lists, which end when they have enough items or become too large."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Text, cast, func, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_keyauth.domain.keys import KeyFilters
from fastapi_keyauth.store.mapping import RowMapper, keys

MAX_PAGE_BYTES = 256 * 1024
"""Size of the JSON columns of one page as they are stored. A page has at least one item, whatever its size."""

KEY_COLUMNS_OF_ANY_SIZE = (keys.c.scopes, keys.c.metadata, keys.c.allowed_origins, keys.c.allowed_ips)


async def find_page_ids(
    connection: AsyncConnection,
    statement: Select[Any],
    id_column: Column[Any],
    sized: tuple[Column[Any], ...],
    limit: int,
) -> tuple[list[Any], bool]:
    """Return the ids of the items of a page, and whether more items follow.

    The sizes are computed by the database, so that no page is read that is then not sent.

    Args:
        connection: Connection to read from.
        statement: Selects the items in their order.
        id_column: Id of an item.
        sized: Columns that determine its size.
        limit: Maximum number of items.
    """
    size = sum((func.length(cast(column, Text)) for column in sized), start=func.length(""))
    rows = (await connection.execute(statement.with_only_columns(id_column, size).limit(limit + 1))).all()
    ids: list[Any] = []
    total = 0
    for item_id, item_size in rows[:limit]:
        total += item_size
        if ids and total > MAX_PAGE_BYTES:
            break
        ids.append(item_id)
    return ids, len(rows) > len(ids)


def conditions_of(filters: KeyFilters, mapper: RowMapper, now: datetime) -> list[ColumnElement[bool]]:
    """Return the conditions for the keys that pass these filters."""
    found: list[ColumnElement[bool]] = []
    if filters.owner_ids is not None:
        found.append(keys.c.owner_id.in_(filters.owner_ids))
    if filters.status is not None:
        found.append(mapper.has_status(filters.status, now))
    if not filters.include_revoked:
        found.append(keys.c.revoked_at.is_(None))
    if filters.text:
        # Names may look like ids, and ids are case-sensitive.
        in_name = keys.c.name.icontains(filters.text, autoescape=True)
        found.append(in_name if filters.key_id is None else or_(keys.c.id == filters.key_id, in_name))
    elif filters.key_id is not None:
        found.append(keys.c.id == filters.key_id)
    if filters.created_by is not None:
        found.append(keys.c.created_by == filters.created_by)
    if filters.unused_since is not None:
        moments = (keys.c.last_used_at, keys.c.imported_at, keys.c.created_at)
        found += [or_(moment.is_(None), moment <= filters.unused_since) for moment in moments]
    return found
