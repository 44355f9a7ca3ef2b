"""Argon2id off the event loop: a bounded pool of threads, so that hashing never stalls other requests."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError

from fastapi_keyauth.errors import HasherUnavailable
from fastapi_keyauth.instruments import Instruments
from fastapi_keyauth.settings import KeyAuthSettings

logger = logging.getLogger("fastapi_keyauth")


class Hasher:
    """Hashes and verifies secrets. At most ``max_concurrent_hashes`` run at once; the rest wait their turn.

    Create it and call it from one event loop; :meth:`close` ends its threads.
    """

    def __init__(self, settings: KeyAuthSettings, instruments: Instruments) -> None:
        self._instruments = instruments
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
        )
        self._max_threads = settings.max_concurrent_hashes
        self._threads: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Get ready to hash. The threads themselves are started when they are needed."""
        self._threads = ThreadPoolExecutor(self._max_threads, thread_name_prefix="keyauth-argon2")

    async def hash(self, secret: str) -> str:
        """The secret's Argon2id hash as a PHC string, with a fresh salt.

        Raises:
            HasherUnavailable: Argon2 cannot run, for want of memory for instance.
        """
        with self._instruments.span("keyauth.hash"):
            return await asyncio.get_running_loop().run_in_executor(self._started(), self._hash, secret)

    async def verify(self, phc: str, secret: str) -> bool:
        """Whether ``secret`` is the one that was hashed. Argon2 compares in constant time.

        Raises:
            HasherUnavailable: Argon2 cannot run: that says nothing about the secret.
        """
        with self._instruments.span("keyauth.verify"):
            return await asyncio.get_running_loop().run_in_executor(self._started(), self._verify, phc, secret)

    def _started(self) -> ThreadPoolExecutor:
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
            self._instruments.hashed("verify", time.perf_counter() - began)

    def _hash(self, secret: str) -> str:
        began = time.perf_counter()
        try:
            return self._hasher.hash(secret)
        except (HashingError, MemoryError) as error:
            raise _unavailable(error) from error
        finally:
            self._instruments.hashed("create", time.perf_counter() - began)

    def close(self) -> None:
        """End the threads once what runs has finished."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


def _unavailable(error: Exception) -> HasherUnavailable:
    logger.error("argon2 cannot run: %s", error, extra={"keyauth_event": "hasher_failed", "reason": str(error)})
    return HasherUnavailable()
