"""Without the secret, nobody learns which ids exist or the state of their keys: neither from the response nor from the
work behind it, which an attacker could time."""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret
from tests.helpers.asgi import RawAnswer, call
from tests.helpers.fuzzing import TIMES, only_long
from tests.helpers.stage import OpenScene, Scene

STATES = ("never used", "in use", "disabled", "revoked", "expired", "replaced", "bound to addresses")
PAIRS = 100
"""In each unit of TIMES."""
CLOSE = 0.05


def guess(key_id: str) -> str:
    """Return a well-formed token with a wrong secret."""
    return format_token("ka", "live", key_id, new_secret())


async def key_in(scene: Scene, state: str) -> str:
    """Return the id of a key in that state."""
    fields: dict[str, Any] = {"allowed_ips": ["192.0.2.1"]} if state == "bound to addresses" else {}
    key = await scene.key(**fields)
    if state != "never used":
        await scene.get(token=key.token)
    if state == "disabled":
        await scene.auth.keys.update(key.id, enabled=False)
    if state == "revoked":
        await scene.auth.keys.revoke(key.id)
    if state == "expired":
        await scene.auth.keys.update(key.id, expires_at=scene.clock.moment(60))
        scene.clock.advance(120)
    if state == "replaced":
        await scene.auth.keys.rotate(key.id, timedelta(0))
    return key.id


@contextmanager
def ledger_of(auth: KeyAuth, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Record all work for a request: questions to the limiter, statements, tasks, hashes."""
    lines: list[str] = []

    def noted(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def note(*args: Any, **kwargs: Any) -> Any:
            lines.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, note)

    def note_statement(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        lines.append(statement)

    def note_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
        lines.append(f"task {work.__qualname__}")
        return asyncio.Task(work, loop=loop, **options)

    engine = auth._parts.database._engine
    assert engine is not None
    loop = asyncio.get_running_loop()
    with monkeypatch.context():
        for owner, names in (
            (auth._parts.limiter, ("check", "record_failure", "known_block_s")),
            (auth._parts.hasher, ("hash", "verify")),
        ):
            for name in names:
                noted(owner, name)
        event.listen(engine.sync_engine, "before_cursor_execute", note_statement)
        loop.set_task_factory(note_task)
        try:
            yield lines
        finally:
            loop.set_task_factory(None)
            event.remove(engine.sync_engine, "before_cursor_execute", note_statement)


def said(answer: RawAnswer) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return everything that the client receives."""
    return answer.status, answer.headers, answer.body


@pytest.mark.parametrize("state", STATES)
async def test_an_id_that_exists_costs_the_same_work_and_gets_the_same_answer(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    async with open_scene(block_after_failures=1000) as scene:
        existing = await key_in(scene, state)
        # The first guess opens connections that the others find open.
        await call(scene.app, headers=[(b"api-key", guess(new_key_id()).encode())])
        with ledger_of(scene.auth, monkeypatch) as lines:
            seen = []
            for key_id in (existing, new_key_id()):
                lines.clear()
                answer = await call(scene.app, headers=[(b"api-key", guess(key_id).encode())])
                seen.append((said(answer), list(lines)))
        assert seen[0][0] == seen[1][0]
        assert seen[0][1] == seen[1][1]
        work = seen[0][1]
        assert sum(line.startswith("SELECT") for line in work) == 1
        assert work.count("check") == work.count("record_failure") == 1
        assert "verify" not in work


async def test_another_owners_id_costs_the_same_work_as_one_that_does_not_exist(
    open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scene() as scene:
        theirs = await scene.key(owner_id="somebody else")
        bearer = (await scene.session("a stranger")).encode()
        headers = [(b"authorization", b"Bearer " + bearer)]
        await call(scene.app, f"/api-keys/{theirs.id}", headers=headers)
        with ledger_of(scene.auth, monkeypatch) as lines:
            seen = []
            for key_id in (theirs.id, new_key_id()):
                lines.clear()
                answer = await call(scene.app, f"/api-keys/{key_id}", headers=headers)
                seen.append((said(answer), list(lines)))
        assert seen[0] == seen[1]
        assert seen[0][0][0] == 404


async def seconds_of(scene: Scene, token: str) -> float:
    """Return the duration of a refusal in seconds."""
    headers = [(b"api-key", token.encode())]
    began = time.perf_counter()
    answer = await call(scene.app, headers=headers)
    took = time.perf_counter() - began
    assert answer.code == "invalid_api_key"
    return took


def superiority(left: list[float], right: list[float]) -> float:
    """Return how often one of `left` exceeds one of `right` (Mann and Whitney's U, as a share): 0.5 if they do not
    differ."""
    ranked = sorted([(value, 0) for value in left] + [(value, 1) for value in right])
    ranks = sum(rank for rank, (_, side) in enumerate(ranked, 1) if side == 0)
    return (ranks - len(left) * (len(left) + 1) / 2) / (len(left) * len(right))


@pytest.fixture
async def crowd(open_scene: OpenScene) -> AsyncIterator[tuple[Scene, Callable[[], str]]]:
    """Yield a scene with many keys in use, and a function that picks one of their ids."""
    async with open_scene(block_after_failures=1_000_000) as scene:
        keys = [await scene.key() for _ in range(100)]
        for key in keys:
            await scene.get(token=key.token)
        yield scene, lambda: random.choice(keys).id


@only_long
@pytest.mark.fuzz
async def test_response_times_do_not_reveal_which_ids_exist(crowd: tuple[Scene, Callable[[], str]]) -> None:
    """Pairs in random order, so that other load on the machine affects both equally."""
    scene, existing_id = crowd
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(PAIRS * TIMES):
        kinds = [True, False]
        random.shuffle(kinds)
        for exists in kinds:
            times[exists].append(await seconds_of(scene, guess(existing_id() if exists else new_key_id())))
    share = superiority(times[True], times[False])
    medians = {exists: statistics.median(values) * 1e6 for exists, values in times.items()}
    print(f"{PAIRS * TIMES} pairs: superiority {share:.4f}, medians {medians[True]:.1f} and {medians[False]:.1f} us")
    assert abs(share - 0.5) < CLOSE
