"""Queries for unused and expiring keys, for the lifetime policy and its events."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, not_, or_, select, true

from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.domain.lifetimes import APPLIES, EXEMPT
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.mapping import RowMapper, is_of_product, keys
from fastapi_keyauth.store.tables import NoticeRow, table
from fastapi_keyauth.store.upserts import insert_into

_notices = table(NoticeRow)

EXPIRED = "expired"
EXPIRING_DAYS = (1, 7)
"""Days before the end of a key at which an event announces it, in ascending order."""
LATE = timedelta(days=7)
"""Time after the end of a key within which its event may still be sent, if no worker was running."""
BATCH = 200
"""Maximum number of keys of one round."""


class Ending(NamedTuple):
    """A key that has ended, or ends soon.

    Attributes:
        days: One of ``EXPIRING_DAYS``; 0: it has ended.
        is_announced: Whether an event says so. If not, it is only claimed, so that the next round finds other keys.
    """

    key_id: str
    owner_id: str
    expires_at: datetime
    days: int
    is_announced: bool


class LifetimeStore:
    """Finds unused keys, and claims the events about expiring ones.

    Args:
        database: The database.
        settings: The policy, and the product.
    """

    def __init__(self, database: Database, settings: KeyAuthSettings) -> None:
        self._database = database
        self.tasks = database.tasks
        self._mapper = RowMapper(settings)
        self._policy = settings.key_policy
        self._is_ours = is_of_product(keys, settings.key_prefix)

    async def find_unused(self, since: datetime, now: datetime) -> list[str]:
        """Return the ids of keys to disable: neither used, created, imported nor enabled after ``since``."""
        moments = (keys.c.last_used_at, keys.c.created_at, keys.c.imported_at, keys.c.enabled_at)
        statement = (
            select(keys.c.id)
            .where(
                keys.c.enabled == true(),
                keys.c.revoked_at.is_(None),
                not_(self._mapper.has_ended(now)),
                *(or_(moment.is_(None), moment <= since) for moment in moments),
                self._applies(),
                self._is_ours,
            )
            .limit(BATCH)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(statement)).scalars())

    async def find_endings(self, now: datetime) -> list[Ending]:
        """Return keys that have ended or end soon, and whose event is not claimed yet."""
        found = []
        async with self._database.read() as connection:
            for days in (0, *EXPIRING_DAYS):
                sooner = max((other for other in (0, *EXPIRING_DAYS) if other < days), default=None)
                since = now - LATE if sooner is None else now + timedelta(days=sooner)
                until = now + timedelta(days=days)
                sent = select(_notices.c.key_id).where(_notices.c.key_id == keys.c.id, _notices.c.notice == _name(days))
                statement = (
                    select(keys.c.id, keys.c.owner_id, keys.c.expires_at, keys.c.created_at, keys.c.policy)
                    .where(
                        self._ends_within(since, until),
                        keys.c.enabled == true(),
                        keys.c.revoked_at.is_(None),
                        not_(sent.exists()),
                        self._is_ours,
                    )
                    .limit(BATCH)
                )
                for row in await connection.execute(statement):
                    end = self._policy.end(row.expires_at, row.created_at, row.policy)
                    # Its row and the policy may give different ends, of which the earlier one counts. A key
                    # that lives no longer than the notice would be announced at its creation.
                    if end is not None:
                        is_announced = since < end <= until and end - row.created_at > timedelta(days=days)
                        found.append(Ending(row.id, row.owner_id, end, days, is_announced))
        return found

    @uncancellable
    async def claim(self, endings: list[Ending], now: datetime) -> list[Ending]:
        """Claim the events of keys. Return those that this process must send."""
        claimed = []
        async with self._database.write() as connection:
            for ending in sorted(endings):  # in one order, so that workers do not deadlock
                row = {"key_id": ending.key_id, "notice": _name(ending.days), "at": now}
                statement = insert_into(_notices, self._database).values(row).on_conflict_do_nothing()
                if (await connection.execute(statement)).rowcount and ending.is_announced:
                    claimed.append(ending)
        return claimed

    def _applies(self) -> ColumnElement[bool]:
        """Return the condition that the policy applies to a key."""
        mark = func.coalesce(keys.c.policy, APPLIES if self._policy.applies_to_all else "")
        return mark == APPLIES

    def _ends_within(self, since: datetime, until: datetime) -> ColumnElement[bool]:
        """Return the condition that a key ends after ``since`` and by ``until``, by its row or by the policy."""
        by_row = and_(keys.c.expires_at > since, keys.c.expires_at <= until)
        ttl = self._policy.max_ttl
        if ttl is None or not self._policy.applies_to_all:
            return by_row
        is_exempt = func.coalesce(keys.c.policy, "") == EXEMPT
        created = and_(keys.c.created_at > since - ttl, keys.c.created_at <= until - ttl)
        return or_(by_row, and_(not_(is_exempt), created))


def _name(days: int) -> str:
    return f"expiring-{days}" if days else EXPIRED
