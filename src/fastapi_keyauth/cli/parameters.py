"""Values of options: durations, times, ids, JSON. Invalid ones are never repeated: they may be secrets."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from fastapi_keyauth.cli.output import say
from fastapi_keyauth.domain.tokens import ID_LENGTH

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_DURATION = re.compile(r"(\d{1,10})([smhdwy])|0")
_HINT = re.compile(rf"[0-9A-Za-z]{{1,16}}_[a-z0-9]{{1,16}}_([0-9A-Za-z]{{{ID_LENGTH}}})_(.*)")
_MAX_TYPED = 4096


def parse_duration(text: str) -> timedelta:
    """Parse ``90s``, ``30m``, ``12h``, ``30d``, ``2w``, ``1y`` (365 days) or ``0``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter("a duration is a number with s, m, h, d, w or y, such as 30d")
    try:
        return timedelta(seconds=int(match[1] or 0) * _UNITS[match[2] or "s"])
    except OverflowError:
        raise typer.BadParameter("this duration is too long") from None


def parse_moment(text: str) -> datetime:
    """Parse a time in ISO 8601 with a time zone, or a date, which is its start in UTC."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter("a time is written as 2027-01-31 or 2027-01-31T12:00:00Z") from None
    if at.tzinfo is None and (at.hour or at.minute or at.second):
        raise typer.BadParameter("a time of day requires a time zone, such as Z for UTC")
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def parse_key_id(text: str) -> str:
    """Parse the 12 characters of an id, or a hint such as ``ka_live_<id>_...`` that contains them."""
    match = _HINT.fullmatch(text.strip())
    if match is None:
        return text.strip()
    if len(match[2]) > 7:  # a hint has three dots or one ellipsis, and four characters
        raise typer.BadParameter(
            f"this is a whole token, which other users of this machine can read; give its id instead: {match[1]}"
        )
    return match[1]


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter('this is not a JSON object, such as {"team": "search"}')
    return value


KeyId = Annotated[str, typer.Argument(metavar="ID", parser=parse_key_id, help="The key's id, or its hint.")]


Reason = Annotated[str | None, typer.Option(help="Reason of the change, for the history.")]


def read_token(argument: str | None, what: str) -> str:
    """Read a token from the argument, from a prompt without echo, or from standard input."""
    if argument is not None:
        say(f"Warning: other users of this machine can read command lines. Give the {what} on standard input.")
        value = argument
    elif sys.stdin.isatty():
        value = str(typer.prompt(what.capitalize(), hide_input=True, err=True))
    else:
        value = sys.stdin.read(_MAX_TYPED)
    if not value.strip():
        raise typer.BadParameter(f"no {what} on standard input")
    return value.strip()
