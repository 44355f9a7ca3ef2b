"""Keys from elsewhere: written all at once, found by what their tokens are found by, taken over at their first use."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, insert, select, true, update
from sqlalchemy.exc import IntegrityError

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.lineage import Lineage, newest_event
from fastapi_keyauth.store.mapping import FOR_TOKEN_COLUMNS, RowMapper, is_of_product, keys, secrets
from fastapi_keyauth.store.tables import EventRow, OriginRow, table

AT_ONCE = 200
"""Rows of one statement: SQLite before 3.32 takes 999 values, and progress is seen."""

_events = table(EventRow)
_origins = table(OriginRow)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ImportedSecret:
    """A secret that came from elsewhere, and its key. The repr shows no hash.

    Attributes:
        key: the key.
        hash: the one that was imported, or ours.
        scheme: of the imported one; None: it is ours, of the whole token.
        tag: where the hash is ours.
        public: the public part by which it was found, if it was.
    """

    key: KeySnapshot
    hash: str = field(repr=False)
    scheme: str | None
    tag: str = field(repr=False)
    public: str | None = None

    def with_public(self, public: str | None) -> "ImportedSecret":
        """The same, found by this part of a token."""
        return self if public is None else replace(self, public=public)


class NewRows(NamedTuple):
    """What one imported key adds to the tables."""

    key: dict[str, Any]
    secret: dict[str, Any]
    event: dict[str, Any]


class LookupTaken(Exception):
    """A lookup that another imported secret has already."""


class ImportStore:
    """Reads and writes imported keys.

    Args:
        database: where they are.
        views: builds records.
        lineage: Notices that the database went back.
    """

    def __init__(self, database: Database, views: RowMapper, lineage: Lineage) -> None:
        self._database = database
        self.tasks = database.tasks
        self._mapper = views
        self._lineage = lineage

    async def find(self, lookups: Sequence[str]) -> dict[str, ImportedSecret]:
        """The secrets that are found by any of these, by what they were found by."""
        statement = (
            select(*FOR_TOKEN_COLUMNS, secrets.c.scheme, secrets.c.tag.label("secret_tag"), newest_event)
            .select_from(self._mapper.token_tables.outerjoin(newest_event, true()))
            .where(secrets.c.lookup.in_(lookups), is_of_product(keys, self._mapper.prefix))
        )
        rows = await self._database.fetch(statement, is_like_probe=True)
        self._lineage.observe(rows)
        return {
            row.lookup: ImportedSecret(self._mapper.key_snapshot(row), row.secret_hash, row.scheme, row.secret_tag)
            for row in rows
        }

    async def find_known(self, lookups: Sequence[str]) -> set[str]:
        """Which of these are taken."""
        known: set[str] = set()
        async with self._database.read() as connection:
            for part in _in_parts(lookups):
                statement = select(secrets.c.lookup).where(secrets.c.lookup.in_(part))
                known.update((await connection.execute(statement)).scalars())
        return known

    @uncancellable
    async def add(self, rows: Sequence[NewRows], advance: Callable[[int], None]) -> None:
        """Insert keys with their secrets, origins and lines of history: all of them or none.

        Raises:
            LookupTaken: If one of the lookups is taken.
        """
        try:
            await self._insert(rows, advance)
        except IntegrityError as error:
            raise LookupTaken from error

    async def _insert(self, rows: Sequence[NewRows], advance: Callable[[int], None]) -> None:
        async with self._database.write() as connection:
            for part in _in_parts(rows):
                await connection.execute(insert(keys), [{**row.key, "prefix": self._mapper.prefix} for row in part])
                await connection.execute(insert(secrets), [row.secret for row in part])
                await connection.execute(insert(_events), [row.event for row in part])
                origins = [
                    {"origin": origin, "key_id": row.key["id"]} for row in part for origin in row.key["allowed_origins"]
                ]
                if origins:
                    await connection.execute(insert(_origins), origins)
                advance(len(part))

    async def is_adopted(self, secret_id: int, old_hash: str) -> bool:
        """Whether an imported hash has been replaced by now."""
        rows = await self._database.fetch(select(secrets.c.id).where(_is_as_it_was(secret_id, old_hash)))
        return not rows

    @uncancellable
    async def adopt(self, secret_id: int, old_hash: str, values: Mapping[str, Any]) -> None:
        """Replace an imported hash by ours: these columns alone, and only if nobody did so before."""
        async with self._database.write() as connection:
            replaced = update(secrets).where(_is_as_it_was(secret_id, old_hash))
            await connection.execute(replaced.values(**values))


def _is_as_it_was(secret_id: int, old_hash: str) -> ColumnElement[bool]:
    return (secrets.c.id == secret_id) & (secrets.c.hash == old_hash)


def _in_parts(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while part := list(islice(remaining, AT_ONCE)):
        yield part
