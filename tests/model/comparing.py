"""Workers beside the model: the changes made to both, and the comparison of their answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from math import ceil, inf
from pathlib import Path
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from .clients import Clients
from .model import Model
from .parts import STATUS, Answer, Key, Request, Rules, Secret, bucket_of
from .world import Seen, World

KNOWN_BLOCK_S = 5
"""Seconds for which a worker may cache a block that it has met (docs/explanation/design.md)."""
MAX_STALENESS_S = 1
SCRIPT = 3
"""Stands for another process in place of a worker's number."""


class Stage:
    """Worlds that machines share in turn: one for each set of rules. `redis_url` is None for the limiter in memory."""

    def __init__(self, folder: Path, redis_url: str | None) -> None:
        self.redis_url = redis_url
        self._folder = folder
        self._worlds: dict[Rules, World] = {}
        self._count = 0

    def world(self, rules: Rules) -> World:
        """Return a fresh world."""
        world = self._worlds.get(rules)
        if world is None:
            self._count += 1
            world = self._worlds[rules] = World(self._folder / f"{self._count}.db", self.redis_url, rules)
        world.begin_anew()
        return world

    def forget(self, rules: Rules) -> None:
        """Discard a world that misbehaved, because its remaining state is unknown."""
        world = self._worlds.pop(rules, None)
        if world is not None:
            world.close()

    def close(self) -> None:
        """Close all worlds."""
        for rules in list(self._worlds):
            self.forget(rules)


class BesideTheModel(RuleBasedStateMachine):
    """A machine whose steps apply to the workers and to the model of the contract alike."""

    stage: ClassVar[Stage]
    world: World
    model: Model
    clients: Clients

    def __init__(self) -> None:
        super().__init__()
        self._rules: Rules | None = None
        self._remembered_blocks: dict[tuple[int, str], float] = {}
        self._touched: Key | None = None
        self._turn = 0
        self._restarts = 0

    def teardown(self) -> None:
        """Check that the workers counted exactly the events that happened."""
        if self._rules is not None:
            if sys.exception() is None:
                self.look_at_the_books()
            else:
                self.stage.forget(self._rules)

    def look_at_the_books(self) -> None:
        """Check that usage, statuses and live secrets of every key, and the blocks, match the model."""
        blocked_s = {bucket: ceil(self.model.blocked_s(bucket)) for bucket in self.model.attempts}
        blocks = {block.address: block.ends_in_s for block in self.world.run(self.auth(0).blocks.list())}
        assert blocks == {bucket: seconds for bucket, seconds in blocked_s.items() if seconds}
        self.world.write_usage()
        keys = self.auth(0).keys
        for key in self.model.keys:
            self.check_row(self.world.run(keys.get(key.id)), key)
            for used in self.world.run(keys.usage(key.id, 168)):
                hour = int(used.hour.timestamp()) // 3600
                assert (used.admitted, used.refused) == (key.admitted[hour], key.refused[hour])

    def number(self, worker: int) -> int:
        """Return the number of an existing worker."""
        return worker % len(self.world.auths)

    def change(self, by: int, change: Callable[[Any], Coroutine[Any, Any, Any]], then: Callable[[Any], object]) -> None:
        """Change a key from a worker, or from another process, which without Redis cannot notify the workers."""
        if by != SCRIPT:
            then(self.world.run(change(self.auth(by).keys)))
            return

        async def elsewhere() -> Any:
            async with self.world.another_process() as auth:
                return await change(auth.keys)

        then(self.world.run(elsewhere()))
        if self.stage.redis_url is None:
            self.move_to(self.model.now + MAX_STALENESS_S + 0.25)

    def auth(self, worker: int) -> Any:
        """Return the worker's KeyAuth."""
        return self.world.auths[self.number(worker)]

    def check_row(self, row: Any, key: Key) -> None:
        """Check that status, rights and live secrets of a key match the model, newest secret first."""
        alive = [secret.ends_at for secret in key.secrets if secret.ends_at > self.model.now]
        ends = [inf if secret.expires_at is None else secret.expires_at.timestamp() for secret in row.secrets]
        assert (row.status, ends) == (key.status(self.model.now), alive[::-1])
        assert len(alive) <= 2
        assert (frozenset(row.scopes), row.hourly_limit) == (key.scopes, self.model.limit_of(key))

    def move_to(self, moment: float) -> None:
        """Move the clock of the workers and of the model."""
        self.model.note_origins()
        self.world.now = self.model.now = moment
        self.model.note_origins()

    def has_made(self, key_id: str, token: str, owner: str, fields: dict[str, Any]) -> Key:
        """Record a created key in the model."""
        key = Key(key_id, owner, [Secret(token)])
        self.model.add_key(key)
        return self.has_changed(key, fields)

    def has_rotated(self, key: Key, token: str, overlap_s: float) -> Key:
        """Record a rotation in the model."""
        self._touched = key
        self.model.rotate(key, token, overlap_s)
        return key

    def has_changed(self, key: Key, fields: dict[str, Any]) -> Key:
        """Record a change in the model."""
        self._touched = key
        self.model.note_origins()
        for name, value in fields.items():
            if name == "scopes":
                key.scopes = frozenset(value)
            elif name == "expires_at":
                key.expires_at = inf if value is None else self.model.now + value
            else:
                setattr(key, name, tuple(value) if isinstance(value, list) else value)
        self.model.note_origins()
        return key

    def for_code(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields in the form that `auth.keys` expects."""
        seconds = fields.get("expires_at")
        moment = None if seconds is None else datetime.fromtimestamp(self.model.now + seconds, UTC)
        return {**fields, "expires_at": moment} if "expires_at" in fields else fields

    def for_json(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields in the form of a JSON body."""
        values = self.for_code(fields).items()
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values}

    def ask_one(self, worker: int, request: Request) -> None:
        """Send the request and check the answer."""
        self.judge(worker, request, self.world.ask(self.number(worker), request))

    def judge(self, worker: int, request: Request, seen: Seen, may_go_on: bool = False) -> Answer | None:
        """Compare an answer with the model's and return the latter; None if a worker had cached a lost block.

        `may_go_on`: if the caller is admitted, later checks of the route also apply.
        """
        bucket = bucket_of(request.address)
        if seen.code == "address_blocked" and not self.model.blocked_s(bucket):
            assert self._remembered_blocks.get((self.number(worker), str(bucket)), 0) > self.model.now
            return None
        expected = self.model.answer(request)
        if expected.code is not None or not may_go_on:
            assert (seen.status, seen.code) == (STATUS[expected.code], expected.code)
            waits = {expected.retry_after_s}
            if expected.code == "address_blocked" and expected.retry_after_s and self.stage.redis_url is not None:
                # A worker that has cached the block has rounded its end up to whole seconds.
                waits.add(expected.retry_after_s + 1)
            assert seen.retry_after_s in waits
        assert seen.limits == expected.limits
        assert seen.varies or seen.origin is None
        if request.origin is not None:
            takes_key = request.route.key != "ignored"
            may_echo = self.model.may_echo(request.origin, expected.key) if takes_key else {False}
            assert (seen.origin == request.origin) in may_echo
        if seen.status == 401:
            schemes = [challenge.split(" ")[0] for challenge in seen.challenges]
            assert schemes == (["Bearer"] if request.route.key == "ignored" else ["api-key", "Bearer"])
        self.note_block(worker, request, seen)
        return expected

    def note_block(self, worker: int, request: Request, seen: Seen) -> None:
        """Record that a worker that has met a block in Redis caches it briefly, even if Redis is emptied."""
        bucket = bucket_of(request.address)
        if seen.code == "address_blocked" and bucket is not None and self.stage.redis_url is not None:
            until = self.model.now + min(KNOWN_BLOCK_S, self.model.blocked_s(bucket))
            self._remembered_blocks[self.number(worker), bucket] = until
