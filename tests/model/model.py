"""The contract as a plain program: the answer to each request, and the request's effects on limits and blocks.

Written from the contract's sections 1 to 5 and not from the code under test. It knows every token that was ever
issued, does no I/O, and is exact: times are seconds since 1970, in quarters, so that floats are never rounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from fractions import Fraction
from ipaddress import ip_network
from math import ceil, floor, inf

from .parts import (
    Answer,
    Attempts,
    Key,
    Request,
    Route,
    Rules,
    Secret,
    Session,
    bucket_of,
    covers,
    is_well_formed,
    plain_ip,
)

HOUR_S = 3600
ORIGINS_HOLD_WITHIN_S = 5


class Finding(Exception):
    """A check's finding; the first one decides."""

    def __init__(self, code: str, retry_after_s: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.retry_after_s = retry_after_s


class Model:
    """Expected keys, sessions, counts and blocks. `now` is set by the code that moves the clock."""

    def __init__(self, rules: Rules, now: float) -> None:
        self.rules = rules
        self.now = now
        self.keys: list[Key] = []
        self.tokens: dict[str, tuple[Key, Secret]] = {}
        self.sessions: dict[str, Session] = {}
        self.attempts: dict[str, Attempts] = {}
        self._allowed_at: dict[str, float] = {}
        self._not_allowed_at: dict[str, float] = {}

    # Events other than requests

    def add_key(self, key: Key) -> None:
        """Record a created key."""
        self.keys.append(key)
        self.tokens[key.secrets[0].token] = (key, key.secrets[0])

    def rotate(self, key: Key, token: str, overlap_s: float) -> None:
        """Rotate a key.

        Its last secret lives on for the overlap, never past the key's own expiry; older ones end now.
        """
        for secret in key.secrets[:-1]:
            secret.ends_at = min(secret.ends_at, self.now)
        key.secrets[-1].ends_at = min(self.now + overlap_s, key.expires_at)
        key.secrets.append(Secret(token))
        self.tokens[token] = (key, key.secrets[-1])

    def empty_redis(self) -> None:
        """Clear counters and blocks; Redis holds nothing else that is not stored elsewhere."""
        self.attempts.clear()
        for key in self.keys:
            key.units.clear()

    def moments(self) -> list[float]:
        """Return the times of automatic changes: ends of the hour, of secrets, keys, sessions, windows and blocks."""
        found = {float((self.now // HOUR_S + 1) * HOUR_S)}
        found |= {key.expires_at for key in self.keys} | {secret.ends_at for key in self.keys for secret in key.secrets}
        found |= {session.expires_at for session in self.sessions.values()}
        for attempts in self.attempts.values():
            found |= {attempts.first_at + self.rules.failure_window_s, attempts.blocked_until}
        return sorted(moment for moment in found if self.now < moment < inf)

    # Section 2

    def answer(self, request: Request) -> Answer:
        """Run the checks in their order and return the answer. Count the units that the request uses."""
        answer = Answer()
        try:
            self._check_key(request, answer)
            self._check_session(request, answer)
            self._check_scopes(request.route, answer)
        except Finding as finding:
            answer.code = finding.code
            answer.retry_after_s = finding.retry_after_s
        return answer

    def _check_key(self, request: Request, answer: Answer) -> None:
        tokens, wanted = request.api_tokens, request.route.key
        if wanted == "ignored" or (wanted == "optional" and not tokens):
            return
        if not tokens:
            raise Finding("missing_api_key")
        bucket = bucket_of(request.address)
        found = self.tokens.get(tokens[0]) if len(tokens) == 1 else None
        blocked_s = self.blocked_s(bucket)
        if blocked_s > 0 and not (self.rules.block_spares_valid_keys and found is not None):
            raise Finding("address_blocked", ceil(blocked_s))
        if len(tokens) > 1 or not is_well_formed(tokens[0]):
            self._fail(bucket)
            raise Finding("malformed_api_key")
        if found is None:
            self._fail(bucket)
            raise Finding("invalid_api_key")
        answer.key, secret = found
        self._check_row(answer.key, secret, request)
        self._use_unit(answer.key, answer)

    def _check_row(self, key: Key, secret: Secret, request: Request) -> None:
        status = key.status(self.now)
        if status == "active" and secret.ends_at <= self.now:
            status = "expired"
        code = None
        if status != "active":
            code = f"{status}_api_key"
        elif key.allowed_origins and request.origin is not None and request.origin not in key.allowed_origins:
            code = "origin_not_allowed"
        elif key.allowed_ips:
            ip = None if request.address is None else plain_ip(request.address)
            if ip is None or not any(ip in ip_network(network) for network in key.allowed_ips):
                code = "address_not_allowed"
        if code is not None:
            key.refused[self.hour] += 1
            raise Finding(code)

    def _check_session(self, request: Request, answer: Answer) -> None:
        wanted, sent = request.route.session, request.sessions
        if wanted == "ignored":
            return
        if not sent:
            if wanted == "wanted":
                raise Finding("missing_session" if answer.key is None else "session_required")
            if answer.key is None:
                raise Finding("missing_credentials")
            return
        session = self.sessions.get(sent[0]) if len(sent) == 1 else None
        if session is None or session.expires_at <= self.now or session.revoked:
            raise Finding("invalid_session")
        answer.session = session

    def _check_scopes(self, route: Route, answer: Answer) -> None:
        if route.scope is None:
            return
        if route.session == "instead":
            held = answer.key.scopes if answer.key is not None and answer.session is None else None
            if held is not None and not {"admin", route.scope} & held:
                raise Finding("insufficient_scope")
            return
        for holder in (answer.key, answer.session):
            if holder is not None and not covers(holder.scopes, route.scope):
                raise Finding("insufficient_scope")

    # Section 3

    @property
    def hour(self) -> int:
        """Return the clock hour, counted from 1970."""
        return int(self.now // HOUR_S)

    def limit_of(self, key: Key) -> int | None:
        """Return the hourly limit in force."""
        return self.rules.default_hourly_limit if key.hourly_limit is None else key.hourly_limit

    def _use_unit(self, key: Key, answer: Answer) -> None:
        limit = self.limit_of(key)
        if limit is not None:
            if self._room(key, limit, self.now) < 1:
                waits = range(1, 2 * HOUR_S + 1)
                wait_s = waits[bisect_left(waits, True, key=lambda s: self._room(key, limit, self.now + s) >= 1)]
                answer.limits = (limit, 0, wait_s)
                key.refused[self.hour] += 1
                raise Finding("rate_limit_exceeded", wait_s)
            key.units[self.hour] += 1
            left_s = (self.hour + 1) * HOUR_S - self.now
            answer.limits = (limit, floor(self._room(key, limit, self.now)), ceil(left_s))
        key.admitted[self.hour] += 1

    def _room(self, key: Key, limit: int, at: float) -> Fraction:
        """Return the units that are free at a given time."""
        hour = int(at // HOUR_S)
        used = Fraction(key.units[hour])
        if self.rules.rate_limit_algorithm == "sliding_window":
            used += key.units[hour - 1] * ((hour + 1) * HOUR_S - Fraction(at)) / HOUR_S
        return limit - used

    # Section 4

    def blocked_s(self, bucket: str | None) -> float:
        """Return the seconds that a block has yet to run; 0 if the address is not blocked."""
        attempts = None if bucket is None else self.attempts.get(bucket)
        return 0.0 if attempts is None else max(0.0, attempts.blocked_until - self.now)

    def _running(self, bucket: str) -> Attempts | None:
        attempts = self.attempts.get(bucket)
        if attempts is None or attempts.first_at + self.rules.failure_window_s <= self.now:
            return None
        return None if -inf < attempts.blocked_until <= self.now else attempts

    def _fail(self, bucket: str | None) -> None:
        if bucket is None:
            return
        attempts = self.attempts[bucket] = self._running(bucket) or Attempts(self.now)
        attempts.count += 1
        if attempts.count >= self.rules.block_after_failures:
            attempts.blocked_until = self.now + self.rules.block_for_s

    # Section 5

    def note_origins(self) -> None:
        """Record allowed origins. Called before and after changes that may alter which origins an active key lists."""
        allowed = set(self._origins_of_active_keys())
        for origin in allowed - self._allowed_at.keys():
            self._not_allowed_at[origin] = self.now  # It was not allowed until now.
        for origin in {*allowed, *self._allowed_at}:
            (self._allowed_at if origin in allowed else self._not_allowed_at)[origin] = self.now

    def may_echo(self, origin: str, key: Key | None) -> set[bool]:
        """Return the permitted answers to whether `Access-Control-Allow-Origin` is sent."""
        if origin in self.rules.allowed_origins:
            return {True}
        if key is not None:
            return {origin in key.allowed_origins}
        self.note_origins()
        long_ago = self.now - ORIGINS_HOLD_WITHIN_S
        may = {origin in set(self._origins_of_active_keys())}
        may |= {True} if self._allowed_at.get(origin, -inf) >= long_ago else set()
        return may | ({False} if self._not_allowed_at.get(origin, -inf) >= long_ago else set())

    def _origins_of_active_keys(self) -> Iterator[str]:
        return (origin for key in self.keys if key.status(self.now) == "active" for origin in key.allowed_origins)
