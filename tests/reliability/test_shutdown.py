"""SIGTERM under load: accepted requests get a response, and counted usage is written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from reliability.site import SETTINGS
from tests.helpers.fleet import Answer, Connection
from tests.helpers.session import Servers
from tests.helpers.waiting import until
from tests.helpers.workers import Workers

QUICK = SLOW = 6
BEFORE = 100


async def test_a_stop_under_load_loses_no_request_and_no_count(
    servers: Servers, tmp_path: Path, start_workers: Callable[..., Workers]
) -> None:
    database = tmp_path / "keyauth.db"
    env = {
        **SETTINGS,
        "KEYAUTH_DATABASE_URL": f"sqlite+aiosqlite:///{database}",
        "KEYAUTH_REDIS_URL": servers.fresh_redis_url("valkey"),
        "KEYAUTH_REDIS_TIMEOUT_S": "10",  # a busy machine is no outage
    }
    server = start_workers("reliability.app:app", 1, env)
    managing = await Connection.open(server.base_url)
    logged_in = await managing.ask("POST", "/log-in/owner")
    session = {"authorization": f"Bearer {logged_in.body['session_token']}"}
    made = (await managing.ask("POST", "/api-keys", session, {"name": "k", "hourly_limit": 1_000_000})).body
    await managing.close()
    answers: list[Answer] = []

    async def keep_asking(path: str) -> None:
        connection = await Connection.open(server.base_url)
        try:
            while True:
                answers.append(await connection.ask("GET", path, {"api-key": made["token"]}))
        except (OSError, asyncio.IncompleteReadError):
            with contextlib.suppress(OSError):
                await connection.close()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for path in ["/models"] * QUICK + ["/slow"] * SLOW:
            group.create_task(keep_asking(path))
        await until(lambda: len(answers) >= BEFORE)
        stopped_at = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(server.process.wait, 15)
    assert {answer.status for answer in answers} == {200}
    under_way = [answer for answer in answers if answer.began_at < stopped_at < answer.ended_at]
    assert len(under_way) >= SLOW
    said = json.loads((server.folder / f"stopped-{server.process.pid}.json").read_text())
    assert said == {"begun": len(answers) + 2, "finished": len(answers) + 2}
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT sum(units) FROM keyauth_usage_hours").fetchone() == (len(answers),)
        (last_used_at,) = connection.execute("SELECT last_used_at FROM keyauth_keys").fetchone()
        (secret_used_at,) = connection.execute("SELECT last_used_at FROM keyauth_secrets").fetchone()
    connection.close()
    assert last_used_at == secret_used_at
    assert last_used_at > made["created_at"].replace("T", " ").rstrip("Z")
