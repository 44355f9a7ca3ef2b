"""Running a command: the settings, a connection, and an exit code for everything that can go wrong."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import IntEnum
from typing import NoReturn, TypeVar

import typer

from fastapi_keyauth.cli.output import say
from fastapi_keyauth.errors import (
    ChangePending,
    HasherUnavailable,
    InvalidField,
    KeyAuthError,
    KeyNotActive,
    KeyNotFound,
    LimiterUnavailable,
    SetupError,
    StoreUnavailable,
)
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.settings.settings import KeyAuthSettings

Result = TypeVar("Result")


class Exit(IntEnum):
    """Exit codes; docs/cli.md has the same table."""

    DONE = 0
    REFUSED = 1
    """It cannot be done to this thing, or there is no such thing."""
    USAGE = 2
    """A command, option or value that cannot be right."""
    UNAVAILABLE = 3
    """A setting is wrong, the database or Redis does not answer, or the tables want an upgrade. Nothing was changed,
    unless the database was lost just as it committed."""
    PENDING = 4
    """The change is stored, and not yet told to every worker."""


def run_command(work: Callable[[KeyAuth], Awaitable[Result]], *, as_json: bool) -> Result:
    """Run ``work`` on a KeyAuth that is connected; end the process with a sentence and a code where it fails."""
    with failing(as_json=as_json):
        return asyncio.run(_perform(work))


async def _perform(work: Callable[[KeyAuth], Awaitable[Result]]) -> Result:
    async with connected(KeyAuth(KeyAuthSettings(), telemetry=False)) as auth:
        return await work(auth)


@contextlib.asynccontextmanager
async def connected(auth: KeyAuth) -> AsyncIterator[KeyAuth]:
    """Connect to the database, and to Redis only when there is something to tell it.

    Not ``async with auth:``, which looks for Redis and keeps house: who looks at keys, or revokes one, while Redis is
    down must get through at once, and a command is over before there is a house to keep.
    """
    await auth._database.start()
    try:
        auth._hasher.start()
        auth._usage.start()
        yield auth
    finally:
        await auth._limiter.close()
        await auth._database.close()
        auth._hasher.close()


@contextlib.contextmanager
def failing(*, as_json: bool) -> Iterator[None]:
    """Turn our errors into a sentence on stderr and an exit code."""
    try:
        yield
    except KeyAuthError as error:
        code, name, sentence = _explain(error)
        fail(code, name, sentence, as_json=as_json)


def fail(code: Exit, name: str, sentence: str, *, as_json: bool) -> NoReturn:
    """Say why, and end the process."""
    if as_json:
        sys.stderr.write(json.dumps({"code": name, "detail": sentence}) + "\n")
    else:
        say(sentence)
    raise typer.Exit(code)


def _explain(error: KeyAuthError) -> tuple[Exit, str, str]:
    if isinstance(error, KeyNotFound):
        return Exit.REFUSED, "not_found", "There is no key with this id."
    if isinstance(error, KeyNotActive):
        return Exit.REFUSED, "key_not_active", f"The key is {error.status}, so this cannot be done to it."
    if isinstance(error, InvalidField):
        return Exit.USAGE, "invalid", f"{error.field}: {error.message}."
    if isinstance(error, ChangePending):
        sentence = (
            "The change is stored. Redis cannot be told of it now, so it holds everywhere"
            f" within {error.holds_within_s} seconds, while workers run."
        )
        return Exit.PENDING, "pending", sentence
    sentences: dict[type[KeyAuthError], str] = {
        SetupError: str(error),
        StoreUnavailable: "The database cannot answer now.",
        LimiterUnavailable: f"Redis cannot answer now ({error}).",
        HasherUnavailable: "Argon2 cannot run now, for want of memory for instance.",
    }
    for kind, sentence in sentences.items():
        if isinstance(error, kind):
            return Exit.UNAVAILABLE, "unavailable", sentence
    return Exit.REFUSED, "refused", f"{type(error).__name__}: {error}"
