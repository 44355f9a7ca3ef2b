"""Workers beside the model: what is done to both, and how an answer is compared with what it had to be."""

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
"""Seconds for which a worker may remember a block that it has met (docs/design.md)."""
MAX_STALENESS_S = 1
SCRIPT = 3
"""In place of a worker's number: another process."""


class Stage:
    """Worlds that machines take turns in: one for each set of rules. `redis_url` is None for the limiter in memory."""

    def __init__(self, folder: Path, redis_url: str | None) -> None:
        self.redis_url = redis_url
        self._folder = folder
        self._worlds: dict[Rules, World] = {}
        self._count = 0

    def world(self, rules: Rules) -> World:
        """One in which nothing has happened."""
        world = self._worlds.get(rules)
        if world is None:
            self._count += 1
            world = self._worlds[rules] = World(self._folder / f"{self._count}.db", self.redis_url, rules)
        world.begin_anew()
        return world

    def forget(self, rules: Rules) -> None:
        """Who knows what is left in a world that did not do as it should."""
        world = self._worlds.pop(rules, None)
        if world is not None:
            world.close()

    def close(self) -> None:
        """End them all."""
        for rules in list(self._worlds):
            self.forget(rules)


class BesideTheModel(RuleBasedStateMachine):
    """A machine whose steps happen to workers and to the model of the contract alike."""

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
        """What the workers counted must be what has happened."""
        if self._rules is not None:
            if sys.exception() is None:
                self.look_at_the_books()
            else:
                self.stage.forget(self._rules)

    def look_at_the_books(self) -> None:
        """Usage, statuses and live secrets of every key, and the blocks, are what the model says."""
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
        """One of the workers that there are."""
        return worker % len(self.world.auths)

    def change(self, by: int, change: Callable[[Any], Coroutine[Any, Any, Any]], then: Callable[[Any], object]) -> None:
        """Change a key by code of a worker, or of another process, which without Redis can tell nobody."""
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
        """The worker's KeyAuth."""
        return self.world.auths[self.number(worker)]

    def check_row(self, row: Any, key: Key) -> None:
        """Status, rights and live secrets of a key are what the model says, newest secret first."""
        alive = [secret.ends_at for secret in key.secrets if secret.ends_at > self.model.now]
        ends = [inf if secret.expires_at is None else secret.expires_at.timestamp() for secret in row.secrets]
        assert (row.status, ends) == (key.status(self.model.now), alive[::-1])
        assert len(alive) <= 2
        assert (frozenset(row.scopes), row.hourly_limit) == (key.scopes, self.model.limit_of(key))

    def move_to(self, moment: float) -> None:
        """Move the clock, of the workers and of the model."""
        self.model.note_origins()
        self.world.now = self.model.now = moment
        self.model.note_origins()

    def has_made(self, key_id: str, token: str, owner: str, fields: dict[str, Any]) -> Key:
        """Tell the model of a key."""
        key = Key(key_id, owner, [Secret(token)])
        self.model.add_key(key)
        return self.has_changed(key, fields)

    def has_rotated(self, key: Key, token: str, overlap_s: float) -> Key:
        """Tell the model of a rotation."""
        self._touched = key
        self.model.rotate(key, token, overlap_s)
        return key

    def has_changed(self, key: Key, fields: dict[str, Any]) -> Key:
        """Tell the model of a change."""
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
        """The fields as `auth.keys` wants them."""
        seconds = fields.get("expires_at")
        moment = None if seconds is None else datetime.fromtimestamp(self.model.now + seconds, UTC)
        return {**fields, "expires_at": moment} if "expires_at" in fields else fields

    def for_json(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields as a body has them."""
        values = self.for_code(fields).items()
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values}

    def ask_one(self, worker: int, request: Request) -> None:
        """Send it, and judge the answer."""
        self.judge(worker, request, self.world.ask(self.number(worker), request))

    def judge(self, worker: int, request: Request, seen: Seen, may_go_on: bool = False) -> Answer | None:
        """Compare an answer with the model's, which is given back; None where a worker remembered a lost block.

        `may_go_on`: where the caller is let in, there is more to judge than who it is.
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
                # A worker that remembers the block has rounded its end up to whole seconds.
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
        """A worker that has met a block in Redis remembers it a little while, also if Redis is emptied."""
        bucket = bucket_of(request.address)
        if seen.code == "address_blocked" and bucket is not None and self.stage.redis_url is not None:
            until = self.model.now + min(KNOWN_BLOCK_S, self.model.blocked_s(bucket))
            self._remembered_blocks[self.number(worker), bucket] = until
