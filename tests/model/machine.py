"""The state machine: random actions on keys, clients, clock and servers, with every answer compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from fastapi_keyauth.errors import KeyNotActive
from tests.helpers.tokens import forge

from .clients import (
    ADDRESS,
    AT_HOME,
    EVIL,
    HOME,
    INDEX,
    ME,
    MODELS,
    NEW_FIELDS,
    ONE_FIELD,
    ORIGIN,
    OURS,
    OVERLAP_S,
    PAUSE_S,
    RULES,
    SCOPES,
    SENDING,
    SHOP,
    USER,
    WORKER,
    Clients,
)
from .comparing import SCRIPT, BesideTheModel
from .grants import Caller, Change
from .model import Model
from .parts import STATUS, Request, Rules, Session, bucket_of

BY = st.sampled_from([0, 1, 2, SCRIPT])
CHANGES = ("create", "create", *("patch",) * 3, "rotate", "rotate", "revoke")
MAX_RESTARTS = 2  # In one story; building an app takes as long as twenty requests.
MAX_KEYS = 10  # In one story, so that they interact.


STEPS: dict[str, st.SearchStrategy[dict[str, Any]]] = {}
Method = TypeVar("Method", bound=Callable[..., None])


def step(**arguments: st.SearchStrategy[Any]) -> Callable[[Method], Method]:
    """Mark a step of the machine; all steps are equally likely.

    Hypothesis's own `rule` leaves some of them out of each story. That works for thousands of stories; a few dozen
    would miss whole kinds of steps.
    """

    def mark(method: Method) -> Method:
        STEPS[method.__name__] = st.fixed_dictionaries(arguments)
        return method

    return mark


class KeysInUse(BesideTheModel):
    """Workers that are used and managed at random."""

    @initialize(rules=RULES, fields=NEW_FIELDS)
    def begin(self, rules: Rules, fields: dict[str, Any]) -> None:
        """Start workers with these settings, a key and a session."""
        self._rules = rules
        self.world = self.stage.world(rules)
        self.model = Model(rules, self.world.now)
        self.clients = Clients(self.model)
        self.create_or_revoke(0, "create", 0, "alice", fields)
        self.log_in_or_out(0, "in", 0, "alice", ["*"], 86_400)

    # Keys and sessions

    @step(by=BY, what=st.sampled_from(["create", "create", "revoke"]), key=INDEX, owner=USER, fields=NEW_FIELDS)
    def create_or_revoke(self, by: int, what: str, key: int, owner: str, fields: dict[str, Any]) -> None:
        """Create or revoke a key."""
        if what == "revoke":
            target = self.clients.key(key)
            self.change(by, lambda keys: keys.revoke(target.id), lambda _: self.has_changed(target, {"revoked": True}))
        elif len(self.model.keys) < MAX_KEYS:
            self.change(
                by,
                lambda keys: keys.create(owner, "made by code", **self.for_code(fields)),
                lambda made: self.check_row(made.key, self.has_made(made.key.id, made.token, owner, fields)),
            )

    @step(by=BY, key=INDEX, fields=ONE_FIELD)
    def patch(self, by: int, key: int, fields: dict[str, Any]) -> None:
        """Update a field of a key that is not revoked."""
        target = self.clients.key(key)
        with pytest.raises(KeyNotActive) if target.revoked else nullcontext():
            self.change(
                by,
                lambda keys: keys.update(target.id, **self.for_code(fields)),
                lambda row: self.check_row(row, self.has_changed(target, fields)),
            )

    @step(by=BY, key=INDEX, overlap_s=OVERLAP_S)
    def rotate(self, by: int, key: int, overlap_s: int) -> None:
        """Give an active key a new secret."""
        target = self.clients.key(key)
        with nullcontext() if target.status(self.model.now) == "active" else pytest.raises(KeyNotActive):
            self.change(
                by,
                lambda keys: keys.rotate(target.id, timedelta(seconds=overlap_s)),
                lambda made: self.check_row(made.key, self.has_rotated(target, made.token, overlap_s)),
            )

    @step(
        worker=WORKER,
        what=st.sampled_from(["in", "in", "out", "out everywhere"]),
        session=INDEX,
        user=USER,
        scopes=SCOPES,
        ttl_s=st.sampled_from([600, 86_400]),
    )
    def log_in_or_out(self, worker: int, what: str, session: int, user: str, scopes: list[str], ttl_s: int) -> None:
        """Start or end a session. Sessions are read on each request, so the change holds immediately on all workers."""
        sessions = self.auth(worker).sessions
        if what == "in":
            token = self.world.run(sessions.create(user, scopes, timedelta(seconds=ttl_s)))
            self.model.sessions[token] = Session(token, user, frozenset(scopes), self.model.now + ttl_s)
            return
        ended = self.clients.session(session)
        self.world.run(sessions.revoke(ended.token) if what == "out" else sessions.revoke_all(ended.user_id))
        for other in self.model.sessions.values():
            if other is ended or (what == "out everywhere" and other.user_id == ended.user_id):
                other.revoked = True
        for number, other in enumerate(self.model.sessions.values()):
            self.ask_one(number, Request(ME, HOME, bearers=(other.token,)))

    @step(
        worker=WORKER,
        caller=st.tuples(st.sampled_from(["session", "key"]), INDEX),
        kind=st.sampled_from(CHANGES),
        key=INDEX,
        fields=st.one_of(ONE_FIELD, NEW_FIELDS),
        overlap_s=OVERLAP_S,
        address=AT_HOME,
    )
    def manage(
        self,
        worker: int,
        caller: tuple[str, int],
        kind: Any,
        key: int,
        fields: dict[str, Any],
        overlap_s: int,
        address: str | None,
    ) -> None:
        """Request a change from the management routes, which the caller may or may not be allowed to make."""
        target = None if kind == "create" else self.clients.key(key)
        fields = {name: fields[name] for name in fields if kind == "patch" or (kind == "create" and name != "enabled")}
        body: Any = {"overlap_s": overlap_s} if kind == "rotate" else self.for_json(fields)
        if kind == "create":
            body["name"] = "made by a caller"
        request = self.clients.management(kind, target, caller, address)
        seen = self.world.ask(self.number(worker), request, body)
        expected = self.judge(worker, request, seen, may_go_on=True)
        if expected is None or expected.code is not None:
            return
        by = Caller(self.model, expected)
        if kind == "create" and "scopes" not in fields and not by.default_scopes():
            assert (seen.status, seen.code) == (422, None), seen
            return
        refusals = by.refusals(Change(kind, target, fields))
        if refusals:
            assert seen.code in refusals, (seen, refusals)
            assert seen.status == STATUS[seen.code]
            return
        assert seen.status == {"create": 201, "patch": 200, "rotate": 201, "revoke": 204}[kind], seen
        if target is None:
            if fields.get("expires_at") is None:
                fields = {name: value for name, value in fields.items() if name != "expires_at"}
            defaults = {"scopes": sorted(by.default_scopes()), "hourly_limit": by.default_limit()}
            fields = {**defaults, **by.inherited(), **fields}
            self.has_made(seen.body["id"], seen.body["token"], by.owner_id, fields)
        elif kind == "rotate":
            self.has_rotated(target, seen.body["token"], overlap_s)
        else:
            self.has_changed(target, {"revoked": True} if kind == "revoke" else fields)

    # Requests

    @step(key=INDEX, sendings=st.lists(st.tuples(WORKER, SENDING), min_size=1, max_size=5))
    def ask(self, key: int, sendings: list[tuple[int, dict[str, Any]]]) -> None:
        """Send some requests that concern one key, one after another."""
        self._touched = self.clients.key(key)
        for worker, sending in sendings:
            self.ask_one(worker, self.clients.request(key, **sending))

    @step(key=INDEX, times=st.integers(1, 6), worker=WORKER, pause_s=PAUSE_S, back=st.integers(0, 1), address=AT_HOME)
    def use(self, key: int, times: int, worker: int, pause_s: float, back: int, address: str | None) -> None:
        """Send plain requests with one key, through one worker after another."""
        self._touched = self.clients.key(key)
        for number in range(times):
            self.ask_one(worker + number, self.clients.request(key, back=back, address=address))
            self.move_to(self.model.now + pause_s)

    @step(
        workers=st.lists(WORKER, min_size=2, max_size=7),
        key=INDEX,
        sent=st.sampled_from(["in the header", "in the header", "mistyped", "wrong secret", "unknown id", "missing"]),
        address=ADDRESS,
    )
    def use_at_once(self, workers: list[int], key: int, sent: str, address: str | None) -> None:
        """Send the same request several times concurrently: in any order, the set of answers is the same."""
        if any(until > self.model.now for until in self._remembered_blocks.values()):
            return
        request = self.clients.request(key, sent=sent, address=address)
        seen = self.world.ask_at_once([self.number(worker) for worker in workers], request)
        expected = [self.model.answer(request) for _ in workers]
        answered = Counter((answer.status, answer.code, answer.limits) for answer in seen)
        assert answered == Counter((STATUS[answer.code], answer.code, answer.limits) for answer in expected)
        for worker, answer in zip(workers, seen, strict=True):
            self.note_block(worker, request, answer)

    @step(times=st.integers(1, 6), worker=WORKER, pause_s=PAUSE_S, key=INDEX, address=ADDRESS, origin=ORIGIN)
    def guess(self, times: int, worker: int, pause_s: float, key: int, address: str | None, origin: str | None) -> None:
        """Make failed attempts through one worker after another, then send a valid key from the address to each."""
        for number in range(times):
            token = "ka_live_nonsense" if number % 2 else forge(secret="W" * 43)
            self.ask_one(worker + number, Request(MODELS, address, (token,)))
            self.move_to(self.model.now + pause_s)
        for number in range(len(self.world.auths)):
            self.ask_one(number, self.clients.request(key, address=address, origin=origin))

    @invariant()
    def what_was_touched_last_is_right(self) -> None:
        """Use the key that was touched last, with each of its recent secrets, through different workers.

        Also send a browser's preflight, which requires no key and counts nothing.
        """
        if self._touched is None:
            return
        self._turn += 1
        for secret in self._touched.secrets[-3:]:
            self._turn += 1
            self.ask_one(self._turn, Request(MODELS, HOME, (secret.token,)))
        origin = (SHOP, EVIL, OURS)[self._turn % 3]
        seen = self.world.preflight(self.number(self._turn), origin)
        is_allowed = seen.origin == origin
        # A method that is not allowed is passed on to the application, which has no such route.
        assert (seen.status, seen.limits) == (204 if is_allowed else 405, None)
        assert is_allowed in self.model.may_echo(origin, None)

    # Time, workers, Redis

    @step(
        until=st.one_of(st.none(), INDEX, INDEX),
        seconds=st.sampled_from([1, 4.75, 600, 1800]),
        plus_s=st.sampled_from([-0.25, 0.0, 0.0, 0.25]),
    )
    def let_pass(self, until: int | None, seconds: float, plus_s: float) -> None:
        """Let time pass, usually until just about the end of an hour, a block, a key, a secret or a session."""
        moments = self.model.moments()
        moment = self.model.now + seconds if until is None else moments[until % len(moments)]
        self.move_to(max(self.model.now, moment + plus_s))

    @step(worker=WORKER, what=st.sampled_from(["a worker", "Redis", "Redis", "an address"]), address=ADDRESS)
    def start_afresh(self, worker: int, what: str, address: str | None) -> None:
        """Restart a worker, restart Redis without its data, or lift the block of an address."""
        if what == "an address":
            if address is not None:
                was_blocked = self.model.blocked_s(bucket_of(address)) > 0
                assert self.world.run(self.auth(worker).blocks.clear(address)) == was_blocked
                self.model.attempts.pop(str(bucket_of(address)), None)
        elif what == "Redis" and self.stage.redis_url is not None:
            self.world.write_usage()  # Redis loses what was not written yet
            self.world.empty_redis()
            self.model.empty_redis()
        elif what == "a worker" and self._restarts < MAX_RESTARTS:
            self._restarts += 1
            if self.stage.redis_url is None:
                self.model.empty_redis()  # The limiter in memory ends with its process.
            self.world.restart(self.number(worker))
            for at in [at for at in self._remembered_blocks if at[0] == self.number(worker)]:
                del self._remembered_blocks[at]

    @rule(named=st.sampled_from(sorted(STEPS)).flatmap(lambda name: st.tuples(st.just(name), STEPS[name])))
    def do(self, named: tuple[str, dict[str, Any]]) -> None:
        """Run one of the steps."""
        name, arguments = named
        getattr(self, name)(**arguments)
