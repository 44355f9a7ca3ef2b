"""Rights of running requests: whether they would be refused now because of key, owner, session or scopes.

It repeats those checks of ``authenticator.py`` whose outcome a change can reverse: 4, 5, 6, 9 and 10. The row of a key
is read again only if the limiter reports that the key or its owner has changed. Changes to sessions are not reported,
so sessions are read each time, all in one query.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.request_context import NO_TERMS, AuthContext
from fastapi_keyauth.auth.row_checks import find_fault
from fastapi_keyauth.auth.sessions import SessionGate
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.principals import KeyPrincipal, SessionPrincipal, holds
from fastapi_keyauth.errors import (
    InsufficientScope,
    InvalidApiKey,
    InvalidSession,
    KeyAuthError,
    TemporarilyUnavailable,
)
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import KeyStore


class Running(Protocol):
    """The attributes of a running request that decide on its rights."""

    context: AuthContext
    scope: Scope
    began_at: float
    """When it began, on the monotonic clock."""


RunningT = TypeVar("RunningT", bound=Running)


class _Proof(NamedTuple):
    """A row, and the evidence that it is current.

    Attributes:
        row: The key with one of its secrets. None: it does not exist any more.
        generation: Returned by the limiter before the row was read.
        read_at: When it was read, on the monotonic clock.
    """

    row: KeySnapshot | None
    generation: str
    read_at: float


class RightsCheck:
    """Finds the running requests that would be refused now.

    Args:
        authenticator: Its checks, and the limiter, which knows what has changed.
        store: Reads the keys that have changed.
        sessions: Checks sessions again.
        now: Returns the current time, UTC.
        max_age_s: Age of a row in seconds from which it is read again although nothing shows a change. Infinite with
            Redis, which knows every change.
        max_unchecked_s: Seconds after which a request that cannot be checked ends. None: it goes on.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        store: KeyStore,
        sessions: SessionGate,
        now: Callable[[], datetime],
        max_age_s: float,
        max_unchecked_s: float | None,
    ) -> None:
        self._authenticator = authenticator
        self._store = store
        self._sessions = sessions
        self._now = now
        self._max_age_s = max_age_s
        self._max_unchecked_s = max_unchecked_s
        self._proofs: dict[int, _Proof] = {}
        """Id of a secret to its row, of keys that have changed since requests with them began."""
        self._distrusted_at = -math.inf
        self._confirmed_at: dict[str, float] = {}
        """When the limiter, the store and the sessions last answered, on the monotonic clock."""

    @classmethod
    def of(
        cls,
        settings: KeyAuthSettings,
        authenticator: Authenticator,
        store: KeyStore,
        sessions: SessionGate,
        now: Callable[[], datetime],
    ) -> "RightsCheck":
        """Create the check for the settings."""
        max_age_s = settings.max_staleness_s if settings.redis_url is None else math.inf
        max_unchecked_s = settings.max_in_flight_unchecked_s if settings.on_limiter_outage == "deny" else None
        # A row must not become too old before the next check either.
        period_s = settings.end_in_flight_within_s or 0.0
        return cls(authenticator, store, sessions, now, max(0.0, max_age_s - period_s), max_unchecked_s)

    def distrust_rows(self) -> None:
        """Distrust every row read until now, because the database was unavailable, restored or replaced."""
        self._distrusted_at = time.monotonic()

    async def find_lost_keys(self, running: Iterable[RunningT], at: float) -> dict[RunningT, KeyAuthError]:
        """Return the requests that would be refused now because of key or owner, each with the reason.

        Args:
            running: The running requests.
            at: The time, on the monotonic clock.
        """
        by_secret: dict[int, list[RunningT]] = {}
        for request in _revocable(running):
            context = request.context
            if context.key is not None and isinstance(context.key_outcome, KeyPrincipal):
                by_secret.setdefault(context.key.secret_id, []).append(request)
        return await self._check_keys(by_secret, at)

    async def find_lost_sessions(self, running: Iterable[RunningT], at: float) -> dict[RunningT, KeyAuthError]:
        """Return the requests that would be refused now because of their session, each with the reason.

        It may take as long as the application's session resolver.

        Args:
            running: The running requests.
            at: The time, on the monotonic clock.
        """
        by_session: dict[str, list[RunningT]] = {}
        for request in _revocable(running):
            context = request.context
            if context.credentials.session is not None and isinstance(context.session_outcome, SessionPrincipal):
                by_session.setdefault(context.credentials.session, []).append(request)
        return await self._check_sessions(by_session, at)

    async def _check_keys(self, by_secret: dict[int, list[RunningT]], at: float) -> dict[RunningT, KeyAuthError]:
        holders = {secret_id: _holder(requests[0].context) for secret_id, requests in by_secret.items()}
        try:
            generations = await self._find_generations(list(dict.fromkeys(holders.values())))
        except TemporarilyUnavailable as error:
            return self._give_up("limiter", itertools.chain.from_iterable(by_secret.values()), error, at)
        self._confirmed_at["limiter"] = at
        lost: dict[RunningT, KeyAuthError] = {}
        doubtful: dict[int, list[RunningT]] = {}
        for secret_id, requests in by_secret.items():
            generation = generations[holders[secret_id]]
            current = [request for request in requests if self._has_current_row(request, generation)]
            if len(current) < len(requests):
                proven = set(current)
                doubtful[secret_id] = [request for request in requests if request not in proven]
            # All have the same row, which is current. A row without conditions gives the same result at any time.
            if current and (row := current[0].context.key) is not None and row.has_conditions:
                for request in current:
                    self._judge(request, row, lost)
        problem = await self._read_rows({each: generations[holders[each]] for each in doubtful}, at)
        for secret_id, requests in doubtful.items():
            if secret_id in self._proofs:
                for request in requests:
                    self._judge(request, self._proofs[secret_id].row, lost)
            elif problem is not None:
                lost |= self._give_up("store", requests, problem, at)
        return lost

    async def _find_generations(self, holders: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
        found = await self._authenticator.limiter.find_generations(holders) if holders else []
        return dict(zip(holders, found, strict=True))

    def _has_current_row(self, request: Running, generation: str) -> bool:
        """Return whether the row that the request was admitted by is current."""
        decision = request.context.decision
        is_same = decision is not None and decision.generation == generation != ""
        return is_same and self._max_age_s == math.inf and request.began_at > self._distrusted_at

    async def _read_rows(self, wanted: Mapping[int, str], at: float) -> TemporarilyUnavailable | None:
        """Read the wanted rows that have no current proof, and drop the proofs of all other rows.

        Args:
            wanted: Generations of the keys, by id of their secret.
            at: The time, on the monotonic clock.

        Returns:
            The error if the rows could not be read. They have no proof then.
        """
        current = {each: proof for each, proof in self._proofs.items() if self._is_current(proof, wanted.get(each), at)}
        missing = [secret_id for secret_id in wanted if secret_id not in current]
        self._proofs = current
        try:
            rows = await self._store.find_by_secrets(missing)
        except TemporarilyUnavailable as error:
            return error
        self._confirmed_at["store"] = at
        for secret_id in missing:
            self._proofs[secret_id] = _Proof(rows.get(secret_id), wanted[secret_id], at)
        return None

    def _is_current(self, proof: _Proof, generation: str | None, at: float) -> bool:
        is_same = bool(generation) and proof.generation == generation
        return is_same and proof.read_at > self._distrusted_at and at - proof.read_at < self._max_age_s

    def _judge(self, request: RunningT, row: KeySnapshot | None, lost: dict[RunningT, KeyAuthError]) -> None:
        """Add a request to ``lost`` if checks 4, 5, 6 or 10 would refuse it."""
        context = request.context
        if row is None:
            lost[request] = InvalidApiKey(None if context.key is None else context.key.id)
            return
        fault = find_fault(row, self._now(), context)
        if fault is not None:
            lost[request] = fault
        elif missing := [scope for scope in (context.terms or NO_TERMS).key_scopes if not holds(row.scopes, scope)]:
            lost[request] = InsufficientScope(missing, key_id=row.id)

    async def _check_sessions(self, by_token: dict[str, list[RunningT]], at: float) -> dict[RunningT, KeyAuthError]:
        found = await self._sessions.check_again(
            {token: HTTPConnection(requests[0].scope) for token, requests in by_token.items()}
        )
        lost: dict[RunningT, KeyAuthError] = {}
        for token, requests in by_token.items():
            outcome = found[token]
            if isinstance(outcome, TemporarilyUnavailable):
                lost |= self._give_up("sessions", requests, outcome, at)
            else:
                for request in requests:
                    error = _find_session_fault(request.context, outcome)
                    if error is not None:
                        lost[request] = error
        if not any(isinstance(outcome, TemporarilyUnavailable) for outcome in found.values()):
            self._confirmed_at["sessions"] = at
        return lost

    def _give_up(
        self, part: str, requests: Iterable[RunningT], error: TemporarilyUnavailable, at: float
    ) -> dict[RunningT, KeyAuthError]:
        """Return the requests that were not checked for too long, because a part does not respond."""
        if self._max_unchecked_s is None:
            return {}
        since = self._confirmed_at.get(part, -math.inf)
        return {one: error for one in requests if at - max(since, one.began_at) >= self._max_unchecked_s}


def _revocable(running: Iterable[RunningT]) -> Iterator[RunningT]:
    """Yield the requests that must end when their credentials lose their rights."""
    return (request for request in running if not (request.context.terms or NO_TERMS).outlives_rights)


def _holder(context: AuthContext) -> tuple[str, str]:
    """Return the ids of a request's key and of its owner."""
    return ("", "") if context.key is None else (context.key.id, context.key.owner_id)


def _find_session_fault(context: AuthContext, outcome: SessionPrincipal | KeyAuthError) -> KeyAuthError | None:
    """Return the finding of checks 9 and 10 on the current state of a request's session, or None."""
    before = context.session_outcome
    if isinstance(outcome, KeyAuthError):
        return outcome
    if not isinstance(before, SessionPrincipal) or before.user_id != outcome.user_id:
        return InvalidSession()
    missing = [scope for scope in (context.terms or NO_TERMS).session_scopes if not outcome.holds(scope)]
    return InsufficientScope(missing) if missing else None
