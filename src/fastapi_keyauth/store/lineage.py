"""Detection of a database that is restored from a backup, or replaced, while workers run.

Every change to a key or an owner adds a line to the history in its transaction, and lines are never deleted. So reading
a key's row also reads the newest line (its id and time), as a mark of the state of the database. If the database no
longer has a mark, it was restored or replaced since a row was read and perhaps cached.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.tables import EventRow, table

logger = logging.getLogger("fastapi_keyauth")

MAX_MARKS = 500
"""Maximum number of marks between two checks. SQLite before 3.32 accepts 999 values in a statement."""

_events = table(EventRow)

newest_event = (
    select(_events.c.id.label("event_id"), _events.c.at.label("event_at"))
    .order_by(_events.c.id.desc())
    .limit(1)
    .subquery("newest_event")
)
"""A subquery to join to statements whose rows are cached. See ``Lineage.observe``."""


class Lineage:
    """Collects marks, and checks them.

    Args:
        database: The database.

    Attributes:
        on_break: Called when the database was restored or replaced.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._marks: dict[int, datetime] = {}
        self.on_break: Callable[[], None] = lambda: None

    def observe(self, rows: Sequence[Row[Any]]) -> None:
        """Take the mark from rows of one statement that was joined with ``newest_event``."""
        if not rows or rows[0].event_id is None or len(self._marks) >= MAX_MARKS:
            return
        self._marks.setdefault(rows[0].event_id, rows[0].event_at)

    async def check(self) -> None:
        """Check that the database has all marks. Call ``on_break`` if one is missing or different."""
        marks = dict(self._marks)
        newest = select(newest_event.c.event_id).scalar_subquery()
        statement = select(_events.c.id, _events.c.at).where(_events.c.id.in_(marks) | (_events.c.id == newest))
        try:
            rows = await self._database.fetch(statement)
        except StoreUnavailable:
            return  # logged where it happens; the next check comes soon
        found = {row.id: row.at for row in rows}
        if any(found.get(event_id) != at for event_id, at in marks.items()):
            self._report(marks)
        # Those that were observed meanwhile are checked the next time.
        newer = {event_id: at for event_id, at in self._marks.items() if marks.get(event_id) != at}
        self._marks = ({max(found): found[max(found)]} if found else {}) | newer

    def _report(self, marks: dict[int, datetime]) -> None:
        logger.error(
            "the database went back to an earlier state or was replaced: every key is read again",
            extra={"keyauth_event": "database_replaced", "newest_event": max(marks)},
        )
        self.on_break()
