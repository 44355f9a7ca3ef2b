"""Reads of keys by tokens: those that arrive while others are running share one statement."""

import asyncio
from collections import defaultdict
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, true

from fastapi_keyauth.concurrency.single_flight import copy_error
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.lineage import Lineage, newest_event
from fastapi_keyauth.store.mapping import FOR_TOKEN_COLUMNS, RowMapper, is_of_product, keys, secrets

MAX_RUNNING = 2
"""Maximum number of statements that run concurrently. Those that arrive meanwhile wait for one to end, and are read
together: after a restart a worker meets all its keys within seconds."""
MAX_TOKENS = 64
"""Maximum number of tokens in one statement."""

Found = list[tuple[KeySnapshot, str]]
"""A key and a secret's hash, once for each of its secrets with the tag that was asked for."""


class _Question(NamedTuple):
    key_id: str
    tag: str
    future: "asyncio.Future[Found]"


class TokenReads:
    """Reads the rows that tokens name. Use it from one event loop.

    Args:
        database: The database.
        mapper: Builds the records.
        lineage: Detects that the database was restored to an earlier state.
    """

    def __init__(self, database: Database, mapper: RowMapper, lineage: Lineage) -> None:
        self._database = database
        self._mapper = mapper
        self._lineage = lineage
        self._waiting: list[_Question] = []
        self._running: set[asyncio.Task[None]] = set()
        # Built once: building it takes longer than compiling it, which SQLAlchemy caches.
        self._statement = (
            select(*FOR_TOKEN_COLUMNS, secrets.c.tag, newest_event)
            .select_from(mapper.token_tables.outerjoin(newest_event, true()))
            .where(
                keys.c.id.in_(bindparam("ids", expanding=True)),
                secrets.c.tag.in_(bindparam("tags", expanding=True)),
                is_of_product(keys, mapper.prefix),
            )
            .order_by(secrets.c.id.desc())
        )

    async def find(self, key_id: str, tag: str) -> Found:
        """Return the key and the secret's hash, once for each of its secrets with this tag: nearly always one or none.

        For an unknown id and for a wrong secret, the same statement finds nothing, so both take equally long.

        Raises:
            StoreUnavailable: If the database is unavailable.
        """
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Question(key_id, tag, future))
        self._start()
        return await future

    def _start(self) -> None:
        """Start a statement for those that wait, if one may run."""
        if len(self._running) >= MAX_RUNNING:
            loop = asyncio.get_running_loop()
            self._running = {task for task in self._running if task.get_loop() is loop}  # others never end
        if len(self._running) < MAX_RUNNING and self._waiting:
            batch, self._waiting = self._waiting[:MAX_TOKENS], self._waiting[MAX_TOKENS:]
            task = asyncio.create_task(self._read(batch), name="keyauth-read-tokens")
            self._running.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _read(self, batch: list[_Question]) -> None:
        loop = asyncio.get_running_loop()
        # The clients of the others have left, or their event loop has ended.
        wanted = [one for one in batch if not one.future.done() and one.future.get_loop() is loop]
        if not wanted:
            return
        try:
            found = await self._fetch(wanted)
        except Exception as error:  # whatever it is, those that wait get it
            for question in wanted:
                if not question.future.done():
                    question.future.set_exception(copy_error(error))
        else:
            for question in wanted:
                if not question.future.done():
                    question.future.set_result(found[question.key_id, question.tag])
        finally:
            for question in wanted:
                question.future.cancel()  # no effect unless this task was cancelled

    async def _fetch(self, wanted: list[_Question]) -> dict[tuple[str, str], Found]:
        # A power of two, so that there are few texts of the statement for the database to prepare.
        padding = [wanted[-1]] * ((1 << (len(wanted) - 1).bit_length()) - len(wanted))
        values: dict[str, Any] = {
            "ids": [question.key_id for question in wanted + padding],
            "tags": [question.tag for question in wanted + padding],
        }
        rows = await self._database.fetch(self._statement.params(values), is_like_probe=True)
        self._lineage.observe(rows)
        found: defaultdict[tuple[str, str], Found] = defaultdict(list)
        for row in rows:
            found[row.id, row.tag].append((self._mapper.key_snapshot(row), row.secret_hash))
        return found
