"""Key ids, cursors and searches from clients, checked before they reach the database."""

import base64
import binascii
import re
from datetime import UTC, datetime

from fastapi_keyauth.domain.keys import Key
from fastapi_keyauth.domain.tokens import ID_LENGTH
from fastapi_keyauth.errors import InvalidField, KeyNotFound

MAX_UNUSED_DAYS = 36_500
MAX_PAGE = 200
"""Maximum number of items in one page."""
MAX_USAGE_HOURS = 168
"""Maximum number of hours of usage in one response."""

_KEY_ID = re.compile(rf"[0-9A-Za-z]{{{ID_LENGTH}}}")


_HINT_OR_TOKEN = re.compile(rf"[0-9A-Za-z]{{1,16}}_[a-z0-9]{{1,16}}_([0-9A-Za-z]{{{ID_LENGTH}}})(?![0-9A-Za-z])")


def read_search(q: str) -> tuple[str | None, str | None]:
    """Return the part of a name and the key id to search for. Either may be None.

    If the text contains a token or a hint, only its key id is searched for, so that the secret is not passed on.
    """
    text = q.strip()
    named = _HINT_OR_TOKEN.search(text)
    if named is not None:
        return None, named[1]
    return text or None, text if _KEY_ID.fullmatch(text) else None


def check_key_id(key_id: str) -> str:
    """Return a well-formed key id. Malformed ones need no read from the database.

    Raises:
        KeyNotFound: If the key id is malformed.
    """
    if not _KEY_ID.fullmatch(key_id):
        raise KeyNotFound
    return key_id


def write_cursor(key: Key) -> str:
    """Return the cursor for the page after this key."""
    return base64.urlsafe_b64encode(f"{key.created_at.isoformat()}|{key.id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """Return the creation time and id of the last key on the previous page.

    Raises:
        InvalidField: If the cursor is invalid.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        moment, _, key_id = text.partition("|")
        at = datetime.fromisoformat(moment)
    except (ValueError, binascii.Error):
        raise InvalidField("cursor", "must be the next_cursor of a page") from None
    if at.tzinfo != UTC or not _KEY_ID.fullmatch(key_id):
        raise InvalidField("cursor", "must be the next_cursor of a page")
    return at, key_id


def read_event_cursor(cursor: str) -> int:
    """Return the number of the last event on the previous page.

    Raises:
        InvalidField: If the cursor is invalid.
    """
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidField("cursor", "must be the next_cursor of a page")
    return int(cursor)
