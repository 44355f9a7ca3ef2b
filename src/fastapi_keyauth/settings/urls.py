"""URLs of servers: which database will do, and how passwords stay out of what is printed."""

import re

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

_PARAMETER = re.compile(r"(?<=[?&])([^=&?]+)=[^&]*")
_SECRET = re.compile("pass|secret|token", re.IGNORECASE)


class MaskedUrl(str):
    """A URL whose repr masks its passwords, so that settings may be logged."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(masked_url(self))


def masked_url(url: str) -> str:
    """A URL with its passwords replaced, for messages."""
    text = _PARAMETER.sub(lambda match: f"{match[1]}=***" if _SECRET.search(match[1]) else match[0], str.__str__(url))
    authority, at, rest = text.rpartition("@")
    scheme, _, user_and_password = authority.partition("://")
    user, colon, _ = user_and_password.partition(":")
    return f"{scheme}://{user}:***@{rest}" if at and colon and "/" not in user else text


def check_database_url(text: str) -> MaskedUrl:
    """The URL as SQLAlchemy's asynchronous drivers want it.

    Raises:
        ValueError: it names another database, or is none.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError("must be a database URL such as postgresql+asyncpg://user@host/name") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+asyncpg")
    if url.drivername == "postgresql+asyncpg" and "sslmode" in url.query:
        # What libpq and hosting providers write; asyncpg has another name for it.
        url = url.set(query={**{k: v for k, v in url.query.items() if k != "sslmode"}, "ssl": url.query["sslmode"]})
    elif url.drivername == "sqlite":
        url = url.set(drivername="sqlite+aiosqlite")
    if url.drivername not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        raise ValueError("must start with sqlite+aiosqlite:// or postgresql+asyncpg://")
    return MaskedUrl(url.render_as_string(hide_password=False))
