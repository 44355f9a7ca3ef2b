"""What people write in options: durations, times, ids, JSON. Wrong ones are never repeated: they may be secrets."""

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
    """``90s``, ``30m``, ``12h``, ``30d``, ``2w``, ``1y`` (365 days), ``0``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter("a duration is a number with s, m, h, d, w or y, such as 30d")
    try:
        return timedelta(seconds=int(match[1] or 0) * _UNITS[match[2] or "s"])
    except OverflowError:
        raise typer.BadParameter("that is too long") from None


def parse_moment(text: str) -> datetime:
    """ISO 8601, with a zone; a date alone is its first moment in UTC."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter("a time is written as 2027-01-31, or 2027-01-31T12:00:00Z") from None
    if at.tzinfo is None and (at.hour or at.minute or at.second):
        raise typer.BadParameter("a time of day wants a zone, such as Z for UTC")
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def parse_key_id(text: str) -> str:
    """The 12 characters, or a hint such as ``ka_live_<id>_...`` that has them."""
    match = _HINT.fullmatch(text.strip())
    if match is None:
        return text.strip()
    if len(match[2]) > 7:  # a hint has three dots, or one character that looks like them, and four characters
        raise typer.BadParameter(f"that is a whole token, which others can read here: give its id, {match[1]}")
    return match[1]


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter('that is no JSON object, such as {"team": "search"}')
    return value


KeyId = Annotated[str, typer.Argument(metavar="ID", parser=parse_key_id, help="The key's id, or its hint.")]


def read_token(argument: str | None, what: str) -> str:
    """A token from the argument, from a prompt that shows nothing, or from standard input."""
    if argument is not None:
        say(f"Careful: others on this machine can read what is on a command line. Give the {what} on standard input.")
        value = argument
    elif sys.stdin.isatty():
        value = str(typer.prompt(what.capitalize(), hide_input=True, err=True))
    else:
        value = sys.stdin.read(_MAX_TYPED)
    if not value.strip():
        raise typer.BadParameter(f"no {what} on standard input")
    return value.strip()
