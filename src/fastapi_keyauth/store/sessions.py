"""Sessions. Only hashes of their tokens are stored."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import insert, select, update

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.domain.principals import SessionPrincipal
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import is_of_product
from fastapi_keyauth.store.tables import SessionRow, table

_sessions = table(SessionRow)


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
        alive = (_sessions.c.revoked_at.is_(None)) & (_sessions.c.expires_at > now)
        statement = select(_sessions).where(_sessions.c.token_hash == token_hash, alive, self._is_ours)
        rows = await self._database.fetch(statement)
        if not rows:
            return None
        row = rows[0]
        return SessionPrincipal(user_id=row.user_id, scopes=frozenset(row.scopes), expires_at=row.expires_at)

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
