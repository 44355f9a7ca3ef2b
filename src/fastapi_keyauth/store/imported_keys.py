"""Imported keys: inserted in one transaction, found by their lookups, and hashed again at their first use."""

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

MAX_ROWS = 200
"""Maximum number of rows of one statement: SQLite before 3.32 accepts 999 values, and progress is reported."""

_events = table(EventRow)
_origins = table(OriginRow)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class ImportedSecret:
    """An imported secret and its key. The repr shows no hash.

    Attributes:
        key: The key.
        hash: The imported hash, or the Argon2id hash that replaced it.
        scheme: Scheme of the imported hash. None: the hash is Argon2id of the whole token.
        tag: Tag of the secret, if the hash was replaced.
        public: The public part of the token by which it was found, if any.
    """

    key: KeySnapshot
    hash: str = field(repr=False)
    scheme: str | None
    tag: str = field(repr=False)
    public: str | None = None

    def with_public(self, public: str | None) -> "ImportedSecret":
        """Return a copy that was found by this part of a token."""
        return self if public is None else replace(self, public=public)


class NewRows(NamedTuple):
    """The rows of one imported key."""

    key: dict[str, Any]
    secret: dict[str, Any]
    event: dict[str, Any]


class LookupTaken(Exception):
    """A lookup belongs to another imported secret already."""


class ImportStore:
    """Reads and writes imported keys.

    Args:
        database: The database.
        mapper: Builds records.
        lineage: Detects a restored or replaced database.
    """

    def __init__(self, database: Database, mapper: RowMapper, lineage: Lineage) -> None:
        self._database = database
        self.tasks = database.tasks
        self._mapper = mapper
        self._lineage = lineage

    async def find(self, lookups: Sequence[str]) -> dict[str, ImportedSecret]:
        """Return the secrets with any of these lookups, by lookup."""
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
        """Return the lookups that are taken."""
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
        """Return whether an imported hash has been replaced."""
        rows = await self._database.fetch(select(secrets.c.id).where(_is_as_it_was(secret_id, old_hash)))
        return not rows

    @uncancellable
    async def adopt(self, secret_id: int, old_hash: str, values: Mapping[str, Any]) -> None:
        """Replace an imported hash, unless it was replaced before. Writes only these columns."""
        async with self._database.write() as connection:
            replaced = update(secrets).where(_is_as_it_was(secret_id, old_hash))
            await connection.execute(replaced.values(**values))


def _is_as_it_was(secret_id: int, old_hash: str) -> ColumnElement[bool]:
    return (secrets.c.id == secret_id) & (secrets.c.hash == old_hash)


def _in_parts(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while part := list(islice(remaining, MAX_ROWS)):
        yield part
