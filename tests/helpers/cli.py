"""Helpers that run commands in this process and inspect the results."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import typer
from typer.testing import CliRunner, Result

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.cli.app import app

NOBODY = "redis://:hunter2@127.0.0.1:1/0"
"""URL of a Redis that does not respond."""


def keyauth(*arguments: str, code: int = 0, given: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=given)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def read(*arguments: str, **options: Any) -> Any:
    """Return the JSON output of a command."""
    return json.loads(keyauth(*arguments, "--json", **options).stdout)


def make(name: str = "n", *options: str) -> tuple[str, str]:
    """Create a key and return its token and id."""
    token = keyauth("keys", "create", "--owner", "ada", "--name", name, *options).stdout.strip()
    return token, token.split("_")[2]


def with_auth(work: Callable[[KeyAuth], Coroutine[Any, Any, Any]]) -> Any:
    """Run work with a KeyAuth, as the application would."""

    async def run() -> Any:
        async with KeyAuth(KeyAuthSettings()) as auth:
            return await work(auth)

    return asyncio.run(run())


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its words."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{words} {name}".strip(), inner)

    return walk("", typer.main.get_command(app))
