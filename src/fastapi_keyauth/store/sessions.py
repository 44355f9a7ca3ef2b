"""Sessions. Only hashes of their tokens are stored."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, insert, select, update

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.domain.principals import SessionPrincipal
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import is_of_product
from fastapi_keyauth.store.tables import SessionRow, table

_sessions = table(SessionRow)

MAX_SESSIONS = 500
"""Maximum number of sessions that one query reads."""


class SessionStore:
    """Reads and writes sessions.

    Args:
        database: The database.
        prefix: The product's key prefix; sessions of other products are neither found nor revoked.
    """

    def __init__(self, database: Database, prefix: str) -> None:
        self._database = database
        self._prefix = prefix
        self._is_ours = is_of_product(_sessions, prefix)
        self.tasks = database.tasks

    @uncancellable
    async def add(
        self, token_hash: str, user_id: str, scopes: Iterable[str], now: datetime, expires_at: datetime
    ) -> None:
        """Insert a session."""
        statement = insert(_sessions).values(
            token_hash=token_hash,
            user_id=user_id,
            scopes=sorted(scopes),
            created_at=now,
            expires_at=expires_at,
            prefix=self._prefix,
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def find(self, token_hash: str, now: datetime) -> SessionPrincipal | None:
        """Return a session; None if it is unknown, expired or revoked."""
        rows = await self._database.fetch(self._select(now).where(_sessions.c.token_hash == token_hash))
        return _principal(rows[0]) if rows else None

    def _select(self, now: datetime) -> Select[Any]:
        alive = (_sessions.c.revoked_at.is_(None)) & (_sessions.c.expires_at > now)
        return select(_sessions).where(alive, self._is_ours)

    async def find_all(self, token_hashes: Sequence[str], now: datetime) -> dict[str, SessionPrincipal]:
        """Return sessions by the hashes of their tokens, without those that are unknown, expired or revoked.

        Args:
            token_hashes: The hashes; one query reads ``MAX_SESSIONS`` of them.
            now: The time, UTC.
        """
        found: dict[str, SessionPrincipal] = {}
        for start in range(0, len(token_hashes), MAX_SESSIONS):
            part = token_hashes[start : start + MAX_SESSIONS]
            rows = await self._database.fetch(self._select(now).where(_sessions.c.token_hash.in_(part)))
            found |= {row.token_hash: _principal(row) for row in rows}
        return found

    @uncancellable
    async def revoke(self, now: datetime, token_hash: str | None = None, user_id: str | None = None) -> None:
        """Revoke one session, or all sessions of a user. A session that was revoked before keeps its time.

        Raises:
            ValueError: If neither is given.
        """
        statement = update(_sessions).where(_sessions.c.revoked_at.is_(None), self._is_ours).values(revoked_at=now)
        if token_hash is not None:
            statement = statement.where(_sessions.c.token_hash == token_hash)
        if user_id is not None:
            statement = statement.where(_sessions.c.user_id == user_id)
        if token_hash is None and user_id is None:
            raise ValueError("name a session or a user")
        async with self._database.write(is_urgent=True) as connection:
            await connection.execute(statement)


def _principal(row: Row[Any]) -> SessionPrincipal:
    return SessionPrincipal(user_id=row.user_id, scopes=frozenset(row.scopes), expires_at=row.expires_at)
