"""Section 2, row 11, and section 9: requests during an outage of the limiter."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from tests.helpers.servers import Server
from tests.helpers.stage import OpenScene, Scene, code_of, whole_seconds

OpenWithout = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def open_without_limiter(
    open_scene: OpenScene, start_valkey: Callable[..., Server]
) -> Callable[..., AbstractAsyncContextManager[Scene]]:
    """Open a scene whose Redis was available at startup and then became unavailable."""

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Scene]:
        server = start_valkey()
        async with open_scene(redis_url=server.url, **settings) as scene:
            server.kill()
            yield scene

    return opened


async def test_deny_refuses_with_a_503_and_retry_after(open_without_limiter: OpenWithout) -> None:
    async with open_without_limiter(on_limiter_outage="deny") as scene:
        key = await scene.key()
        answer = await scene.get(token=key.token)
        assert (answer.status_code, code_of(answer)) == (503, "temporarily_unavailable")
        assert whole_seconds(answer.headers["retry-after"]) >= 1
        assert answer.json()["status"] == 503


async def test_the_log_names_the_keys_that_were_refused(
    open_without_limiter: OpenWithout, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastapi_keyauth")
    async with open_without_limiter(on_limiter_outage="deny") as scene:
        key = await scene.key()
        caplog.clear()
        await scene.get(token=key.token)
        await scene.get(token=key.token[:-1] + ("0" if key.token[-1] != "0" else "1"))
    seen = [vars(record)["key_id"] for record in caplog.records if vars(record).get("keyauth_event") == "refused"]
    assert seen == [key.id, None]
    assert key.token not in caplog.text


async def test_a_missing_key_is_reported_without_the_limiter(open_without_limiter: OpenWithout) -> None:
    async with open_without_limiter(on_limiter_outage="deny") as scene:
        answer = await scene.get()
        assert (answer.status_code, code_of(answer)) == (401, "missing_api_key")


async def test_local_admits_and_still_limits(open_without_limiter: OpenWithout) -> None:
    async with open_without_limiter(on_limiter_outage="local") as scene:
        key = await scene.key(hourly_limit=2)
        assert await scene.spend(key.token, 3) == [200, 200, 429]


async def test_a_revocation_that_cannot_be_announced_is_stored_and_reported_as_pending(
    open_without_limiter: OpenWithout,
) -> None:
    async with open_without_limiter(on_limiter_outage="local") as scene:
        key, session = await scene.key(), await scene.session()
        assert await scene.spend(key.token) == [200]
        answer = await scene.send("DELETE", f"/api-keys/{key.id}", bearer=session)
        assert answer.status_code in (204, 503)
        if answer.status_code == 503:
            assert answer.json()["holds_within_s"] >= 0
        assert code_of(await scene.get(token=key.token)) == "revoked_api_key"
