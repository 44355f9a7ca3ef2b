"""The order of the checks. This is the file to audit.

For one request, in this order, the first finding decides:

 1. no API token was sent                              MissingApiKey       no failed attempt; also if blocked
 2. the address is blocked                             AddressBlocked
 3. not a well-formed token                            MalformedApiKey     a failed attempt
 4. unknown id or wrong secret                         InvalidApiKey       a failed attempt
 5. disabled, revoked, expired, owner suspended        Disabled-, Revoked-, ExpiredApiKey, OwnerSuspended
 6. origin or address not in the key's lists           OriginNotAllowed, AddressNotAllowed
 7. a limit of key or owner has no room                RateLimitExceeded
    -- from here on the request has been charged its cost --
 8. a session is required and none was sent            SessionRequired     (MissingSession if no key is required)
 9. the session is unknown, expired or revoked         InvalidSession
10. the key or the session lacks a scope               InsufficientScope
11. the store or the limiter is unavailable            TemporarilyUnavailable, at any step

A row that was read before this request began is trusted only if the limiter confirms that the key's generation has not
changed since before the row was read. A row that was read for this request needs no such check. An allowance is such a
confirmation for the next requests: the limiter ends it with any change to the key or to its owner.
"""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, NoReturn

from fastapi_keyauth.auth.charges import raise_cost
from fastapi_keyauth.auth.key_cache import VerifiedKey
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.auth.row_checks import find_fault, refuse_limited
from fastapi_keyauth.auth.sessions import SessionGate
from fastapi_keyauth.auth.verifier import Verifier
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost
from fastapi_keyauth.domain.principals import KeyPrincipal, principal_of
from fastapi_keyauth.domain.token_mistakes import find_placeholder
from fastapi_keyauth.domain.tokens import TokenFormError, token_digest
from fastapi_keyauth.errors import (
    AddressBlocked,
    InvalidApiKey,
    KeyAuthError,
    KeyRefusal,
    MalformedApiKey,
    MissingApiKey,
)
from fastapi_keyauth.limiter import Decision, LimitCheck, Limiter
from fastapi_keyauth.limiter.protocol import BLOCKED, LIMITED, STALE
from fastapi_keyauth.store.usage_buffer import UsageRecorder
from fastapi_keyauth.telemetry.counters import Counters

ANY_KEY = "any"
"""The key id of a check that concerns no key yet, only the address. No key has this id."""


class Authenticator:
    """Runs checks 1 to 7 of this module, in its order. ``row_checks.py`` has 5 and 6, ``session_checks.py`` 8 to 10.

    Attributes:
        limiter: Counts requests and blocks. May be wrapped before the first request, for tracing.
        sessions: Finds the sessions of checks 8 and 9; see ``session_checks.py``.
    """

    def __init__(
        self,
        verifier: Verifier,
        limiter: Limiter,
        sessions: SessionGate,
        usage: UsageRecorder,
        now: Callable[[], datetime],
        block_spares_valid_keys: bool,
        counters: Counters,
    ) -> None:
        self.limiter = limiter
        self._verifier = verifier
        self._find_verified = verifier.find_verified
        self.sessions = sessions
        self._usage = usage
        self._now = now
        self._block_spares_valid_keys = block_spares_valid_keys
        self._counters = counters

    async def authenticate_key(self, context: AuthContext) -> KeyPrincipal:
        """Run checks 1 to 7, and wait for them.

        Raises:
            Refusal: The first finding.
            TemporarilyUnavailable: If the store or the limiter is unavailable.
        """
        outcome = self.start(context)
        return outcome if isinstance(outcome, KeyPrincipal) else await outcome

    def start(self, context: AuthContext) -> KeyPrincipal | Coroutine[Any, Any, KeyPrincipal]:
        """Run checks 1 to 7 as far as they go without waiting.

        Returns:
            The principal, if this process has verified the token before and the limiter decides by itself. Otherwise
            the rest of the checks, to be awaited: it returns and raises what ``authenticate_key`` does.

        Raises:
            Refusal: The first finding.
        """
        outcome = context.key_outcome
        if outcome is not None:
            if isinstance(outcome, KeyAuthError):
                raise outcome
            return outcome
        token = context.credentials.token
        if token is None:
            return self._complete(context, self._refuse_unreadable(context))
        address = context.address
        bucket = None if address is None or self._block_spares_valid_keys else address.bucket
        digest = token_digest(token)
        verified = self._find_verified(digest)
        if verified is None:
            return self._complete(context, self._admit_unseen(context, token, digest))
        context.key = key = verified.key
        finding = self.find_fault(key, context) if verified.has_conditions else None
        allowance = verified.allowance
        if allowance is not None and finding is None and context.cost is ONE_REQUEST:
            states = allowance.take(bucket)
            if states is not None:
                decision = context.decision = allowance.decision
                context.states = states
                if decision.usage:  # for leases, Redis counts it
                    self._usage.admitted(key, decision.hour, decision.usage)
                self._counters.admitted_from_memory += 1
                principal = context.key_outcome = principal_of(key, states)
                return principal
        return self._start_verified(context, verified, finding, bucket, token, digest)

    def _start_verified(
        self,
        context: AuthContext,
        verified: VerifiedKey,
        finding: KeyRefusal | None,
        bucket: str | None,
        text: str,
        digest: bytes,
    ) -> KeyPrincipal | Coroutine[Any, Any, KeyPrincipal]:
        """Continue ``start`` with the limiter, for a token that was verified before."""
        key = verified.key
        cost = context.cost if finding is None else None
        age_s = self._verifier.monotonic() - verified.read_at
        # As LimitCheck(...) does it, without the function of Python's around it.
        question = tuple.__new__(
            LimitCheck,
            (key.id, bucket, key.limits, cost, verified.generation, age_s, False, key.owner_id, context.charge),
        )
        seen = self.limiter.try_decide(question)
        if seen is None or seen.verdict is STALE:
            return self._complete(context, self._admit_verified(context, key, finding, question, text, digest))
        try:
            principal = context.key_outcome = self._conclude(context, key, finding, seen)
        except KeyAuthError as error:
            context.key_outcome = error
            raise
        if cost is ONE_REQUEST:
            verified.allowance = self.limiter.find_allowance(question)
        self._counters.admitted_from_memory += 1
        return principal

    async def raise_cost(self, context: AuthContext, cost: Cost) -> None:
        """Have a request cost at least this much. What it was charged already counts towards it.

        Raises:
            RateLimitExceeded: If the request was charged already, by ``auth.protect``, and a limit has no room for the
                difference.
            LimiterUnavailable: If the limiter is unavailable.
        """
        before, decision = context.cost, None
        question = raise_cost(context, cost)
        if question is None or context.key is None:
            return
        try:
            decision = await self.limiter.check(question)
        finally:
            if decision is None or decision.verdict is LIMITED:
                context.cost = before  # a handler that catches the refusal and asks again must not be admitted
        # The row is as old as at the first charge, so its generation stays.
        generation = "" if context.decision is None else context.decision.generation
        context.decision, context.states = decision._replace(generation=generation), decision.states
        if decision.verdict is LIMITED:
            raise refuse_limited(context.key, decision)
        self._usage.charged(context.key, decision.hour, decision.usage)
        context.key_outcome = principal_of(context.key, decision.states)

    @staticmethod
    async def _complete(context: AuthContext, rest: Coroutine[Any, Any, KeyPrincipal]) -> KeyPrincipal:
        """Await the rest of the checks, and note the outcome."""
        try:
            principal = await rest
        except KeyAuthError as error:
            context.key_outcome = error
            raise
        context.key_outcome = principal
        return principal

    async def _admit_verified(
        self,
        context: AuthContext,
        key: KeySnapshot,
        finding: KeyRefusal | None,
        question: LimitCheck,
        text: str,
        digest: bytes,
    ) -> KeyPrincipal:
        """Run checks 2 to 7 for a token that was verified before; the key may have changed since its row was read."""
        self._refuse_known_block(context, question.bucket)
        seen = await self.limiter.check(question)
        if seen.verdict is not STALE:
            principal = self._conclude(context, key, finding, seen)
            self._counters.admitted_from_memory += 1
            return principal
        self._counters.stale += 1
        context.key = None
        location = self._verifier.locate(text, digest)
        reading = self._verifier.read(location, key.id, seen.generation, seen.share_s)
        return await self._admit_by_row(context, key.id, reading, seen)

    async def _admit_unseen(self, context: AuthContext, text: str, digest: bytes) -> KeyPrincipal:
        """Run checks 2 to 7 for a token not verified before.

        The block is checked before the database is asked, and the generation is read before the row.
        """
        bucket = self._bucket_of(context)
        self._refuse_known_block(context, bucket)
        placeholder = find_placeholder(text)
        if placeholder is not None:
            await self._check_block(context)
            raise MalformedApiKey(placeholder, is_counted=False)
        negative = self._verifier.find_negative(digest)
        if negative is not None:
            raise InvalidApiKey(negative or None, begins_block=await self._count_failure(context))
        try:
            location = self._verifier.locate(text, digest)
        except TokenFormError as error:
            raise MalformedApiKey(str(error), begins_block=await self._count_failure(context)) from None
        seen = await self.limiter.check(LimitCheck(location.key_id or ANY_KEY, bucket))
        if seen.verdict is BLOCKED:
            raise AddressBlocked(seen.wait_s)
        self._counters.missed += 1
        key_id = location.key_id
        if key_id is None:  # the text does not contain it, so the database has to be asked first
            key_id = await self._verifier.find_key_id(location)
            if key_id is None:
                raise InvalidApiKey(begins_block=await self._count_failure(context))
            seen = await self.limiter.check(LimitCheck(key_id, bucket))
        reading = self._verifier.read(location, key_id, seen.generation, seen.share_s)
        return await self._admit_by_row(context, key_id, reading, seen)

    async def _admit_by_row(
        self, context: AuthContext, key_id: str, reading: Coroutine[Any, Any, VerifiedKey | None], seen: Decision
    ) -> KeyPrincipal:
        """Run checks 4 to 7 on the key's row, which ``reading`` reads now."""
        verified = await reading
        if verified is None:
            raise InvalidApiKey(key_id, begins_block=await self._count_failure(context))
        context.key = key = verified.key
        finding = self.find_fault(key, context)
        if finding is None:
            bucket, generation = self._bucket_of(context), verified.generation
            question = LimitCheck(key.id, bucket, key.limits, context.cost, generation, age_s=0.0, is_fresh=True)
            seen = await self.limiter.check(question._replace(owner_id=key.owner_id, charge=context.charge))
            # The row is older than the charge: a change in between gave out the generation that the charge returned.
            seen = seen._replace(generation=generation)
        principal = self._conclude(context, key, finding, seen)
        self._counters.admitted_by_row += 1
        return principal

    async def _refuse_unreadable(self, context: AuthContext) -> NoReturn:
        """Refuse a request without exactly one well-formed token."""
        credentials = context.credentials
        if credentials.token_problem is None:
            raise MissingApiKey(credentials.has_session)
        begins_block = await self._count_failure(context)
        raise MalformedApiKey(credentials.token_problem, begins_block=begins_block)

    def _bucket_of(self, context: AuthContext) -> str | None:
        """Return the name under which blocks of the address are stored, or None if blocks do not apply yet."""
        return None if context.address is None or self._block_spares_valid_keys else context.address.bucket

    def _refuse_known_block(self, context: AuthContext, bucket: str | None) -> None:
        """Refuse a request from an address of which this process knows that it is blocked, without asking Redis."""
        if bucket is not None:
            blocked_s = self.limiter.known_block_s(bucket)
            if blocked_s is not None:
                context.key = None  # as in ``_conclude``
                raise AddressBlocked(blocked_s)

    async def _check_block(self, context: AuthContext) -> None:
        """Refuse a request without a valid key if its address is blocked. Count nothing."""
        if context.address is not None:
            seen = await self.limiter.check(LimitCheck(ANY_KEY, context.address.bucket))
            if seen.verdict is BLOCKED:
                raise AddressBlocked(seen.wait_s)

    async def _count_failure(self, context: AuthContext) -> bool:
        """Count a failed attempt, and return whether it begins a block of the address."""
        if context.address is None:
            return False
        blocked_s = await self.limiter.record_failure(context.address.bucket)
        if blocked_s:
            raise AddressBlocked(blocked_s)
        return blocked_s is not None

    def find_fault(self, key: KeySnapshot, context: AuthContext) -> KeyRefusal | None:
        """Return the finding of checks 5 and 6 on a row, or None."""
        return find_fault(key, self._now(), context)

    def _conclude(
        self, context: AuthContext, key: KeySnapshot, finding: KeyRefusal | None, decision: Decision
    ) -> KeyPrincipal:
        """Refuse because of a block, the finding, or a limit; or admit."""
        verdict = decision.verdict
        if verdict is BLOCKED:
            context.key = None  # its secret was not checked, so the response must not depend on the key
            raise AddressBlocked(decision.wait_s)
        if finding is not None:
            self._usage.refused(key, decision.hour)
            raise finding
        context.decision, context.states = decision, decision.states
        if verdict is LIMITED:
            self._usage.refused(key, decision.hour)
            raise refuse_limited(key, decision)
        self._usage.admitted(key, decision.hour, decision.usage)
        return principal_of(key, decision.states)
