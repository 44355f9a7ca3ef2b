"""Errors of the database drivers, and their meaning: an outage, a mistake of this package, or an invalid value."""

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from fastapi_keyauth.errors import SetupError, StoreUnavailable
from fastapi_keyauth.store.health import describe

OUTAGES: tuple[type[Exception], ...] = (DBAPIError, PoolTimeoutError, OSError, TimeoutError)
"""Errors of statements and connections if the database is unavailable, slow, or out of connections."""
try:
    import asyncpg
except ModuleNotFoundError:
    pass
else:
    # While connecting, asyncpg's own errors come through SQLAlchemy unwrapped.
    OUTAGES += (asyncpg.PostgresError, asyncpg.InterfaceError)

_MISTAKES = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
"""Mistakes of this package, which must not be hidden as outages."""

# SQLSTATE codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_STALE_STATEMENT = "0A000"
"""A prepared statement whose tables or types were changed since. SQLAlchemy then prepares all statements again."""
_REFUSALS = frozenset({"42501", "42P01", "42703", "42P05", "26000", _STALE_STATEMENT})
"""Changes to the database that no statement of this package makes: a revoked permission, a dropped table or column,
a changed type, or a pooler in front of it (whose connections have prepared statements of others, or lack ours).
SQLite reports the first three by an ``OperationalError``."""
_SLOTS_FULL = "53300"
_NOT_STORABLE = frozenset({"22021", "22P05"})
"""A character that the encoding of the database does not have."""


def is_mistake(error: BaseException) -> bool:
    """Return whether an error is a mistake of this package rather than a state of the database."""
    return isinstance(error, _MISTAKES) and not is_refusal(error)


def is_refusal(error: BaseException) -> bool:
    """Return whether the database responds, but no longer permits this statement."""
    return isinstance(error, DBAPIError) and _sqlstate(error) in _REFUSALS


def is_stale_statement(error: BaseException | None) -> bool:
    """Return whether a statement has to be prepared again, because the tables were changed."""
    return isinstance(error, DBAPIError) and _sqlstate(error) == _STALE_STATEMENT


def is_out_of_slots(error: BaseException) -> bool:
    """Return whether the server responds, but has no room for another connection."""
    return _sqlstate(error) == _SLOTS_FULL


def is_not_storable(error: BaseException) -> bool:
    """Return whether a value has a character that the encoding of the database does not have."""
    return _sqlstate(error) in _NOT_STORABLE


def _sqlstate(error: BaseException) -> str | None:
    """Return the code of the server's error. SQLAlchemy keeps it on the error that it wraps, or on that one's cause."""
    wrapped = getattr(error, "orig", None) or error
    for candidate in (wrapped, wrapped.__cause__):
        code = getattr(candidate, "sqlstate", None)
        if isinstance(code, str):
            return code
    return None


def explain(error: BaseException, where: str) -> str | None:
    """Return a sentence about an error that prevented the start. None if the database is not its cause."""
    if isinstance(error, SetupError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        hint = ": install the extra 'postgres', or asyncpg itself" if error.name == "asyncpg" else ""
        return f"The database driver {error.name} is not installed{hint}."
    cause = error.__cause__
    if isinstance(error, StoreUnavailable) and cause is not None and is_refusal(cause):
        error = cause
    if isinstance(error, DBAPIError):  # such as a role that may not create tables
        return f"{where} refuses ({describe(error).removesuffix('.')})."
    if isinstance(error, (StoreUnavailable, sqlite3.Error, *OUTAGES)):
        return f"{where} does not answer ({describe(error.__cause__ or error).removesuffix('.')})."
    if isinstance(error, TypeError | ValueError):
        return f"{where} cannot be used ({type(error).__name__})."
    return None
