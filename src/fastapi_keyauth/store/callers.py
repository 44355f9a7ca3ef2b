"""The rows that a caller's authority rests on, read and locked in the transaction of the change that it asks for."""

from datetime import datetime
from typing import Protocol

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_keyauth.domain.keys import Actor, KeySnapshot
from fastapi_keyauth.domain.principals import SessionPrincipal
from fastapi_keyauth.store.mapping import FOR_TOKEN_COLUMNS, RowMapper, keys, secrets
from fastapi_keyauth.store.tables import SessionRow, table

_sessions = table(SessionRow)


async def lock_owner(connection: AsyncConnection, owner_id: str, *, shared: bool = False) -> None:
    """Lock the state of an owner until the transaction ends. Most owners have no row that could be locked.

    Args:
        connection: The transaction. On SQLite, only one transaction writes.
        owner_id: The owner.
        shared: Whether others may read the state meanwhile.
    """
    if connection.dialect.name == "postgresql":
        name = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        # The seed keeps it apart from the lock under which an owner's keys are counted.
        await connection.execute(text(f"SELECT {name}(hashtextextended(:owner, 1))"), {"owner": owner_id})


class CallerRows:
    """Reads the rows of callers. Each stays locked until the transaction ends.

    A later revocation waits for the change; an earlier one is seen. So a change is either committed
    before the revocation is answered, or not at all.

    Args:
        connection: The transaction of the change.
        mapper: Builds records.
        now: The current time, UTC.
    """

    def __init__(self, connection: AsyncConnection, mapper: RowMapper, now: datetime) -> None:
        self._connection = connection
        self._mapper = mapper
        self._now = now

    async def find_key(self, key_id: str, secret_id: int) -> KeySnapshot | None:
        """Return a key as it is now, with the secret that was presented. None if either does not exist."""
        lock = select(keys.c.owner_id).where(keys.c.id == key_id).with_for_update(read=True)
        owner_id = (await self._connection.execute(lock)).scalar()
        if owner_id is None:
            return None
        await lock_owner(self._connection, owner_id, shared=True)
        # A second statement: PostgreSQL reads the rows of other tables as they were before it waited for the lock.
        statement = (
            select(*FOR_TOKEN_COLUMNS)
            .select_from(self._mapper.token_tables)
            .where(keys.c.id == key_id, secrets.c.id == secret_id)
        )
        row = (await self._connection.execute(statement)).first()
        return None if row is None else self._mapper.key_snapshot(row)

    async def find_session(self, token_hash: str) -> SessionPrincipal | None:
        """Return a built-in session. None if it is unknown, expired or revoked."""
        alive = _sessions.c.revoked_at.is_(None) & (_sessions.c.expires_at > self._now)
        statement = select(_sessions).where(_sessions.c.token_hash == token_hash, alive).with_for_update(read=True)
        row = (await self._connection.execute(statement)).first()
        if row is None:
            return None
        return SessionPrincipal(user_id=row.user_id, scopes=frozenset(row.scopes), expires_at=row.expires_at)


class Authority(Protocol):
    """The authority on which a change is made."""

    @property
    def key_id(self) -> str | None:
        """The key whose row ``confirm`` locks. None if it locks none."""

    def actor(self, reason: str | None = None) -> Actor:
        """Return who makes the change, for the history."""

    async def confirm(self, rows: CallerRows) -> None:
        """Check again, in the transaction of the change, what was checked before it.

        Raises:
            Refusal: If the caller is no longer permitted to do this.
        """
