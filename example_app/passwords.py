"""Passwords, hashed with Argon2id in dedicated threads, so that other requests do not wait."""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

_hasher = PasswordHasher()
# Each hash uses 64 MiB, so two threads bound the memory that many concurrent logins can use.
_threads = ThreadPoolExecutor(2, thread_name_prefix="passwords")
_nobodys_hash = _hasher.hash(secrets.token_urlsafe())


async def hash_password(password: str) -> str:
    """Return the hash to store."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


async def verify_password(password_hash: str | None, password: str) -> bool:
    """Return whether the password is correct. None, for an unknown user, takes the same time and returns False."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _verify, password_hash, password)


def _verify(password_hash: str | None, password: str) -> bool:
    try:
        _hasher.verify(password_hash or _nobodys_hash, password)
    except VerifyMismatchError:
        return False
    return password_hash is not None
