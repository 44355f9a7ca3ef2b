"""The form of names (of scopes, owners and keys) and of validation messages."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi_keyauth.errors import InvalidField

MAX_USER_ID_LENGTH = 255
_NOT_TEXT = ("Cc", "Cs", "Zl", "Zp")
_BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # Unicode UAX #9
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Invisible characters in the Unicode categories of letters and symbols: Hangul fillers and blank Braille."""
_SCOPE_NAME = re.compile(r"[\x21\x23-\x29\x2b-\x5b\x5d-\x7e]{1,64}")  # RFC 6749 section 3.3, without "*"


def is_scope_name(name: str) -> bool:
    """Return whether a name has the form of a scope: RFC 6749 section 3.3, at most 64 characters, ``*`` only alone."""
    return name == "*" or _SCOPE_NAME.fullmatch(name) is not None


def check_scope_names(scopes: Iterable[str]) -> list[str]:
    """Return the scopes in order, without duplicates.

    Raises:
        InvalidField: If a scope is malformed, or if ``scopes`` is a string instead of a list.
    """
    if isinstance(scopes, str):
        raise InvalidField("scopes", "must be a list of names")
    names: list[Any] = list(dict.fromkeys(scopes))
    if not all(isinstance(name, str) and is_scope_name(name) for name in names):
        raise InvalidField("scopes", "names have 1 to 64 printable characters without spaces, quotes or '*'")
    return names


def check_owner_id(owner_id: object, field: str) -> str:
    """Return the id of an owner (a user or project), unchanged.

    Raises:
        InvalidField: If it is empty, longer than 255 characters, or has control characters.
    """
    if not isinstance(owner_id, str) or not 1 <= len(owner_id) <= MAX_USER_ID_LENGTH or not is_printable_text(owner_id):
        raise InvalidField(field, f"must have 1 to {MAX_USER_ID_LENGTH} characters, none of them a control character")
    return owner_id


def is_printable_text(text: str) -> bool:
    """Return whether text has no control characters, lone surrogates, or characters that change the text direction.

    Joiners are allowed: names in Persian and Hindi need them.
    """
    return not any(unicodedata.category(character) in _NOT_TEXT or character in _BIDI_CONTROLS for character in text)


def has_visible_text(text: str) -> bool:
    """Return whether text has a visible character: one that is not a space, joiner, mark or filler."""
    return any(unicodedata.category(character)[0] not in "CMZ" and character not in _BLANK for character in text)


def explain(problem: Mapping[str, Any]) -> str:
    """Return the message of a Pydantic error, without the prefix that Pydantic adds to our own messages."""
    return str(problem["msg"]).removeprefix("Value error, ")
