"""Running a command: settings, a connection, and an exit code for every failure."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from fastapi_keyauth.cli.output import say
from fastapi_keyauth.cli.source import load_and_announce_settings
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

if TYPE_CHECKING:
    from fastapi_keyauth.keyauth import KeyAuth
    from fastapi_keyauth.settings.settings import KeyAuthSettings

Result = TypeVar("Result")


class Exit(IntEnum):
    """Exit codes; docs/reference/cli.md has the same table."""

    DONE = 0
    REFUSED = 1
    """Not possible for this object, or the object does not exist."""
    USAGE = 2
    """An invalid command, option or value."""
    UNAVAILABLE = 3
    """A setting is invalid, the database or Redis is unavailable, or the tables require an upgrade. Nothing was
    changed, unless the connection to the database was lost during the commit."""
    PENDING = 4
    """The change is stored, but not yet effective on all workers."""
    INTERRUPTED = 130
    """Ctrl-C. The last line says what was written."""


def run_command(
    work: Callable[[KeyAuth], Awaitable[Result]], *, as_json: bool, on_interrupt: Callable[[], str] | None = None
) -> Result:
    """Run ``work`` on a connected KeyAuth; on failure end the process with a sentence and an exit code.

    Args:
        work: What the command does.
        as_json: Whether failures are printed as JSON.
        on_interrupt: Returns what to say after Ctrl-C.
    """
    with failing(as_json=as_json):
        settings = load_and_announce_settings(as_json=as_json)
        try:
            return asyncio.run(_run(work, settings))
        except KeyboardInterrupt:
            sentence = on_interrupt() if on_interrupt else "Interrupted. A change that had begun may be stored."
            fail(Exit.INTERRUPTED, "interrupted", sentence, as_json=as_json)


async def _run(work: Callable[[KeyAuth], Awaitable[Result]], settings: KeyAuthSettings) -> Result:
    from fastapi_keyauth.domain.keys import COMMAND_LINE
    from fastapi_keyauth.keyauth import KeyAuth

    # Not `async with auth:`, which contacts Redis and starts background tasks: commands must work while Redis is down.
    async with KeyAuth(settings, telemetry=False).connect() as auth:
        actor = f"{COMMAND_LINE}{operating_system_user()}"
        auth.keys, auth.owners = auth.keys.acting_as(actor), auth.owners.acting_as(actor)
        return await work(auth)


def operating_system_user() -> str:
    """Return the name of the user who runs this process, for the history of keys."""
    try:
        import pwd
    except ImportError:  # Windows
        return getpass.getuser()
    # Not getpass.getuser(), which believes LOGNAME and USER.
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container without an entry for its user
        return str(uid)


@contextlib.contextmanager
def failing(*, as_json: bool) -> Iterator[None]:
    """Turn errors of this package into a sentence on stderr and an exit code."""
    try:
        yield
    except KeyAuthError as error:
        code, name, sentence = _explain(error)
        fail(code, name, sentence, as_json=as_json)


def fail(code: Exit, name: str, sentence: str, *, as_json: bool) -> NoReturn:
    """Print the reason and end the process."""
    if as_json:
        sys.stderr.write(json.dumps({"code": name, "detail": sentence}) + "\n")
    else:
        say(sentence)
    raise typer.Exit(code)


def _explain(error: KeyAuthError) -> tuple[Exit, str, str]:
    if isinstance(error, KeyNotFound):
        return Exit.REFUSED, "not_found", "A key with this id does not exist."
    if isinstance(error, KeyNotActive):
        return Exit.REFUSED, "key_not_active", f"The key is {error.status}, so this is not possible."
    if isinstance(error, InvalidField):
        return Exit.USAGE, "invalid", f"{error.field}: {error.message}."
    if isinstance(error, ChangePending):
        sentence = (
            "The change is stored. Redis is unavailable, so it takes effect on all workers"
            f" within {error.holds_within_s} seconds, while workers run."
        )
        return Exit.PENDING, "pending", sentence
    sentences: dict[type[KeyAuthError], str] = {
        SetupError: str(error),
        StoreUnavailable: "The database is unavailable.",
        LimiterUnavailable: f"Redis is unavailable ({error}).",
        HasherUnavailable: "Argon2 cannot run now, for example because memory is short.",
    }
    for kind, sentence in sentences.items():
        if isinstance(error, kind):
            return Exit.UNAVAILABLE, "unavailable", sentence
    return Exit.REFUSED, "refused", f"{type(error).__name__}: {error}"
