"""Argon2id off the event loop: a bounded pool of threads, so that hashing never stalls other requests.

One client's hashing must not delay another's either. Owners take turns. New secrets wait in a lane of their own, so
that a crowd of creations or rotations does not close the one in which keys wait for their first use. Secrets that are
no longer accepted get their own error, which takes a hash but no unit of a rate limit: they wait in a queue of their
own, which rests most of the time.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError

from fastapi_keyauth.concurrency.event_loop import EventLoopBinding
from fastapi_keyauth.concurrency.fair_semaphore import FairSemaphore, TooManyWaiting
from fastapi_keyauth.concurrency.log_throttle import LogThrottle
from fastapi_keyauth.domain import imported_tokens as foreign
from fastapi_keyauth.errors import HasherUnavailable
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.telemetry.counters import Metrics

logger = logging.getLogger("fastapi_keyauth")

MAX_WAITING = 4096
"""Secrets that wait to be verified, and as many new ones that wait to be hashed."""
MAX_WAITING_OF_OWNER = 512
"""At OWASP's minimum and two at a time, about six seconds of hashing. Beyond that, clients should retry instead."""
MAX_WAITING_INACTIVE = 256
MAX_WAITING_INACTIVE_OF_OWNER = 16
INACTIVE_DUTY_CYCLE = 3
"""After an inactive secret the queue rests this many times as long as the hash took: a quarter of one thread."""
_NEW = "new"
"""The lane of secrets that are hashed for the first time."""


class Hasher:
    """Hashes and verifies secrets. At most ``max_concurrent_hashes`` run concurrently; the rest wait their turn.

    Call it from one event loop, between ``start`` and ``close``.

    Args:
        settings: The costs of Argon2, and how many hashes run concurrently.
        metrics: Spans around hashes.
        event_loop: The event loop that calls must come from.
    """

    def __init__(self, settings: KeyAuthSettings, metrics: Metrics, event_loop: EventLoopBinding | None = None) -> None:
        self._metrics = metrics
        self._event_loop = EventLoopBinding() if event_loop is None else event_loop
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
        )
        self._max_threads = settings.max_concurrent_hashes
        self._threads: ThreadPoolExecutor | None = None
        self._turns = self._inactive_turns = FairSemaphore(0, 0, 0)
        self._log_throttle = LogThrottle()

    def start(self) -> None:
        """Prepare to hash. The threads themselves are started when they are needed."""
        self._threads = ThreadPoolExecutor(self._max_threads, thread_name_prefix="keyauth-argon2")
        self._turns = FairSemaphore(self._max_threads, MAX_WAITING, MAX_WAITING_OF_OWNER)
        self._inactive_turns = FairSemaphore(1, MAX_WAITING_INACTIVE, MAX_WAITING_INACTIVE_OF_OWNER)

    async def hash(self, secret: str, owner_id: str | None) -> str:
        """Return a secret's Argon2id hash as a PHC string, with a fresh salt.

        Args:
            secret: The secret.
            owner_id: Owner of the key. If many wait, owners take turns. None: the application's own code, to which no
                bound applies.

        Raises:
            HasherUnavailable: If Argon2 cannot run, for lack of memory for instance, or too many wait for it.
        """
        threads = self._started()
        try:
            async with self._turns.slot(owner_id, lane=_NEW):
                with self._metrics.span("keyauth.hash"):
                    return await asyncio.get_running_loop().run_in_executor(threads, self._hash, secret)
        except TooManyWaiting:
            raise self.too_many("new secrets") from None

    async def verify(self, phc: str, secret: str, owner_id: str) -> bool:
        """Return whether ``secret`` is the one that was hashed. Argon2 compares in constant time.

        Args:
            phc: The hash.
            secret: The secret that was sent.
            owner_id: Owner of the key.

        Raises:
            HasherUnavailable: If Argon2 cannot run, or too many wait for it. It says nothing about the secret.
        """
        is_right, _ = await self._verify_in_turn(phc, secret, owner_id)
        return is_right

    async def verify_inactive(self, phc: str, secret: str, owner_id: str) -> bool:
        """Verify a secret that is refused even if it is right: one at a time, with rests. See ``verify``."""
        took_s = 0.0
        try:
            await self._inactive_turns.acquire(owner_id)
        except TooManyWaiting:
            raise self.too_many("secrets that are revoked, disabled or expired") from None
        try:
            is_right, took_s = await self._verify_in_turn(phc, secret, owner_id)
            return is_right
        finally:
            asyncio.get_running_loop().call_later(INACTIVE_DUTY_CYCLE * took_s, self._inactive_turns.release)

    async def _verify_in_turn(self, phc: str, secret: str, owner_id: str) -> tuple[bool, float]:
        """Return whether the secret is right, and the seconds that hashing took."""
        threads = self._started()
        try:
            async with self._turns.slot(owner_id):
                began = time.monotonic()
                with self._metrics.span("keyauth.verify"):
                    is_right = await asyncio.get_running_loop().run_in_executor(threads, self._verify, phc, secret)
                return is_right, time.monotonic() - began
        except TooManyWaiting:
            raise self.too_many("keys not used before") from None

    async def verify_foreign(self, scheme: str, hashed: str, secret: str, owner_id: str) -> bool:
        """Verify a secret against a hash that another system created. See ``verify``."""
        threads = self._started()
        try:
            async with self._turns.slot(owner_id):
                with self._metrics.span("keyauth.verify"):
                    loop = asyncio.get_running_loop()
                    return await loop.run_in_executor(threads, foreign.verify, scheme, hashed, secret)
        except TooManyWaiting:
            raise self.too_many("imported keys not used before") from None
        except (VerificationError, MemoryError, ModuleNotFoundError) as error:
            raise _unavailable(error) from error

    def too_many(self, of_what: str) -> HasherUnavailable:
        """Return the error for a request that will not wait, and log it, at most one line every few seconds.

        Args:
            of_what: Kind of the waiting secrets, in the plural.
        """
        held_back = self._log_throttle.allow()
        if held_back is not None:
            logger.warning(
                "too many wait for argon2: requests with %s are refused (%d more since the last line)",
                of_what,
                held_back,
                extra={"keyauth_event": "hasher_busy"},
            )
        return HasherUnavailable()

    def _started(self) -> ThreadPoolExecutor:
        self._event_loop.check()
        if self._threads is None:
            raise RuntimeError("KeyAuth is not started: run the app with its lifespan, or use `async with auth:`.")
        return self._threads

    def _verify(self, phc: str, secret: str) -> bool:
        began = time.perf_counter()
        try:
            return self._hasher.verify(phc, secret)
        except (VerifyMismatchError, InvalidHashError):
            return False
        except (VerificationError, MemoryError) as error:
            raise _unavailable(error) from error
        finally:
            self._metrics.hashed("verify", time.perf_counter() - began)

    def _hash(self, secret: str) -> str:
        began = time.perf_counter()
        try:
            return self._hasher.hash(secret)
        except (HashingError, MemoryError) as error:
            raise _unavailable(error) from error
        finally:
            self._metrics.hashed("create", time.perf_counter() - began)

    def close(self) -> None:
        """Let the threads end after their running hashes, and cancel the waiting ones."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def _unavailable(error: Exception) -> HasherUnavailable:
    logger.error("argon2 cannot run: %s", error, extra={"keyauth_event": "hasher_failed", "reason": str(error)})
    return HasherUnavailable()
