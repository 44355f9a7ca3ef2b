"""Requests that are cancelled at each of their waits in turn, without an effect on state or other requests."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_keyauth import KeyAuth
from tests.helpers.asgi import RawAnswer, call
from tests.helpers.contract_app import build_app
from tests.helpers.stage import Clock, MakeAuth
from tests.helpers.tokens import forge
from tests.helpers.waiting import until

pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory", "postgres-valkey"], indirect=True)

LIMIT = 100_000
HANG_S = 20.0
"""A guard: long after this the machine is not busy, something hangs."""


class CutShort(Coroutine[Any, Any, Any]):
    """A coroutine whose task is cancelled at one of its waits.

    Args:
        inner: The coroutine.
        wait: Number of the wait at which it is cancelled, from 0.
        is_late: Whether it is cancelled after its result has arrived but before it reads it; else while it waits.
    """

    def __init__(self, inner: Coroutine[Any, Any, Any], wait: int, is_late: bool) -> None:
        self._inner = inner
        self._left = wait
        self._is_late = is_late
        self.was_cut = False

    def send(self, value: Any) -> Any:
        """Run to the next wait."""
        awaited = self._inner.send(value)
        self._left -= 1
        if self._left == -1:
            self._cut(awaited)
        return awaited

    def _cut(self, awaited: asyncio.Future[Any] | None) -> None:
        self.was_cut = True
        task = asyncio.current_task()
        assert task is not None
        if awaited is None or not self._is_late:
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            awaited.add_done_callback(lambda _: task.cancel())

    def throw(self, *error: Any) -> Any:
        """Throw into the coroutine."""
        return self._inner.throw(*error)

    def close(self) -> None:
        """Close the coroutine."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self  # type: ignore[return-value]  # has all that is asked of a generator here


@dataclass
class Scene:
    """A started app, and the current key."""

    auth: KeyAuth
    app: FastAPI
    clock: Clock
    session: str
    key_id: str = ""
    token: str = ""

    async def new_key(self) -> None:
        """Return a key that this process has not cached."""
        made = await self.auth.keys.create("alice", "k", hourly_limit=LIMIT)
        self.key_id, self.token = made.key.id, made.token

    async def use(self) -> RawAnswer:
        """Send a request with the key."""
        return await call(self.app, headers=[(b"api-key", self.token.encode())])

    async def used(self) -> int:
        """Return the number of used units. This call uses one more."""
        answer = await self.use()
        assert answer.status == 200, answer
        return LIMIT - int(json.loads(answer.body)["remaining"]) - 1

    async def manage(self, method: str, below: str, body: Any = None) -> RawAnswer:
        """Send a management request of the key's owner."""
        headers = [(b"authorization", f"Bearer {self.session}".encode()), (b"content-type", b"application/json")]
        content = b"" if body is None else json.dumps(body).encode()
        return await call(self.app, f"/api-keys{below}", method=method, headers=headers, body=content)

    async def settle(self) -> None:
        """Wait until the work for a cancelled request has ended: no task and no connection is left."""
        await until(self._is_settled, HANG_S, every_s=0.001)

    async def _is_settled(self) -> bool:
        engine = self.auth._parts.database._engine
        assert engine is not None
        pool: Any = engine.pool
        names = {task.get_name() for task in asyncio.all_tasks()}
        return not names & {"keyauth-read", "keyauth-verify", "keyauth-work"} and not pool.checkedout()


@pytest.fixture
async def scene(make_auth: MakeAuth) -> AsyncIterator[Scene]:
    clock = Clock()
    auth = make_auth(clock=clock, redis_timeout_s=10, block_after_failures=1_000_000, max_keys_per_owner=10_000)
    app = build_app(auth)
    async with auth:
        yield Scene(auth, app, clock, await auth.sessions.create("alice", ttl=timedelta(days=1)))


async def cut_everywhere(
    scene: Scene,
    prepare: Callable[[], Awaitable[None]],
    request: Callable[[], Coroutine[Any, Any, RawAnswer]],
    look: Callable[[RawAnswer | None], Awaitable[None]],
) -> int:
    """Cancel a request at its first wait, its second and so on, in both ways, and check the state each time.

    Args:
        scene: The app.
        prepare: Called before each request.
        request: The request that is cancelled.
        look: Called after each request with the response, or None if there was no response.

    Returns:
        Number of waits of the request.
    """
    most = 0
    for is_late in (False, True):
        for wait in range(1000):
            await prepare()
            cut = CutShort(request(), wait, is_late)
            cut_task: asyncio.Task[RawAnswer] = asyncio.create_task(cut)
            async with asyncio.timeout(HANG_S):
                outcome: RawAnswer | BaseException = (await asyncio.gather(cut_task, return_exceptions=True))[0]
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome
            await scene.settle()
            async with asyncio.timeout(HANG_S):
                await look(outcome if isinstance(outcome, RawAnswer) else None)
            if not cut.was_cut:
                break
        else:
            pytest.fail("it never ends by itself")
        most = max(most, wait)
    return most


@pytest.mark.parametrize("is_known", ["unknown", "remembered", "changed"])
async def test_key_works_on_for_others_and_loses_one_unit_at_most(scene: Scene, is_known: str) -> None:
    """Another request with the key runs concurrently, in the same batch and with the same read."""
    used = 0
    other: asyncio.Task[RawAnswer]

    async def prepare() -> None:
        nonlocal used, other
        if is_known == "unknown" or not scene.token:
            await scene.new_key()
            used = 0
        if is_known != "unknown":
            used = await scene.used() + 1
        if is_known == "changed":
            await scene.auth.keys.update(scene.key_id, metadata={"used": used})
        other = asyncio.create_task(scene.use())

    async def look(answer: RawAnswer | None) -> None:
        assert (await other).status == 200
        cost = await scene.used() - used - 1
        assert cost in ((0, 1) if answer is None else (1,))

    waits = await cut_everywhere(scene, prepare, scene.use, look)
    # A key that this process knows is let through without a wait where the limiter is in memory.
    assert waits > 0 or is_known == "remembered"


async def test_guess_counts_once_at_most(scene: Scene) -> None:
    wrong = b""
    guesses = 0

    async def prepare() -> None:
        nonlocal wrong, guesses
        guesses += 1
        wrong = forge(secret=f"{guesses:043}").encode()

    async def look(_: RawAnswer | None) -> None:
        answer = await call(scene.app, headers=[(b"api-key", wrong)])
        assert (answer.status, answer.code) == (401, "invalid_api_key")

    await scene.new_key()
    assert await cut_everywhere(scene, prepare, lambda: call(scene.app, headers=[(b"api-key", wrong)]), look)
    assert await scene.used() == 0


async def test_change_is_complete_or_not_made_at_all(scene: Scene) -> None:
    """After a client that did not wait for the response, the key is unchanged or changed, soon on every worker."""

    async def look(answer: RawAnswer | None) -> None:
        assert answer is None or answer.status == 204
        # What is left to be done is done by any worker's housekeeping; without Redis rows grow too old to be believed.
        await scene.auth._parts.outbox.drain()
        scene.clock.advance(2)
        row = await scene.auth.keys.get(scene.key_id)
        assert (await scene.use()).status == {"active": 200, "revoked": 401}[row.status]
        assert (await scene.manage("DELETE", f"/{scene.key_id}")).status == 204
        assert (await scene.use()).code == "revoked_api_key"

    async def prepare() -> None:
        await scene.new_key()
        assert (await scene.use()).status == 200

    assert await cut_everywhere(scene, prepare, lambda: scene.manage("DELETE", f"/{scene.key_id}"), look)


async def test_rotation_leaves_at_most_two_secrets_and_can_be_repeated(scene: Scene) -> None:
    async def look(_: RawAnswer | None) -> None:
        again = await scene.manage("POST", f"/{scene.key_id}/rotate", {"overlap_s": 60})
        assert again.status == 201
        assert len(json.loads(again.body)["secrets"]) == 2
        scene.token = json.loads(again.body)["token"]
        assert (await scene.use()).status == 200

    async def nothing() -> None:
        """Prepare nothing: the same key each time."""

    await scene.new_key()
    rotation = {"overlap_s": 60}
    assert await cut_everywhere(scene, nothing, lambda: scene.manage("POST", f"/{scene.key_id}/rotate", rotation), look)


async def test_key_is_created_completely_or_not_at_all(scene: Scene) -> None:
    made: set[str] = set()

    async def nothing() -> None:
        """Prepare nothing: any keys."""

    async def look(answer: RawAnswer | None) -> None:
        page = await scene.auth.keys.list(limit=200)
        new = [key for key in page if key.id not in made]
        assert len(new) <= 1
        if answer is not None:
            assert [key.id for key in new] == [json.loads(answer.body)["id"]]
        assert all(len(key.secrets) == 1 for key in new)
        made.update(key.id for key in new)

    assert await cut_everywhere(scene, nothing, lambda: scene.manage("POST", "", {"name": "k"}), look)


async def test_import_is_complete_or_not_made_and_delays_no_change(scene: Scene) -> None:
    records: list[dict[str, str]] = []
    imported = 0

    async def prepare() -> None:
        nonlocal records
        records = [{"owner_id": "them", "name": "n", "hash": secrets.token_hex(32)} for _ in range(3)]

    async def take_over() -> RawAnswer:
        await scene.auth.keys.import_keys(records)
        return await call(scene.app, "/nowhere")

    async def look(answer: RawAnswer | None) -> None:
        nonlocal imported
        new = len(await scene.auth.keys.list(owner_id="them", limit=200)) - imported
        imported += new
        assert new in ((0, 3) if answer is None else (3,))
        await scene.new_key()

    assert await cut_everywhere(scene, prepare, take_over, look)
