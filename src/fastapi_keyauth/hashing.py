"""Argon2id off the event loop: a bounded pool of threads, so that hashing never stalls other requests."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from fastapi_keyauth.settings import KeyAuthSettings


class Hasher:
    """Hashes and verifies secrets. At most ``max_concurrent_hashes`` run at once; the rest wait their turn.

    Create it and call it from one event loop; :meth:`close` ends its threads.
    """

    def __init__(self, settings: KeyAuthSettings) -> None:
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
        """The secret's Argon2id hash as a PHC string, with a fresh salt."""
        return await asyncio.get_running_loop().run_in_executor(self._started(), self._hasher.hash, secret)

    async def verify(self, phc: str, secret: str) -> bool:
        """Whether ``secret`` is the one that was hashed. Argon2 compares in constant time."""
        return await asyncio.get_running_loop().run_in_executor(self._started(), self._verify, phc, secret)

    def _started(self) -> ThreadPoolExecutor:
        if self._threads is None:
            raise RuntimeError("KeyAuth is not started: run the app with its lifespan, or use `async with auth:`.")
        return self._threads

    def _verify(self, phc: str, secret: str) -> bool:
        try:
            return self._hasher.verify(phc, secret)
        except (VerificationError, InvalidHashError):
            return False

    def close(self) -> None:
        """End the threads once what runs has finished."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
