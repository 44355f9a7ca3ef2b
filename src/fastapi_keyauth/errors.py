"""The error tree. Imports nothing of ours; says why, and leaves status codes to ``http/problem_details.py``.

::

    KeyAuthError                      (never raised itself)
    ├── SetupError                    a wrong setting, at start a database that does not answer or a Redis that refuses
    ├── InvalidField                  a value for a key that cannot be right (also a ValueError)
    ├── ImportRefused                 lines of an import cannot be right (also a ValueError)
    ├── Refusal                       a request is refused
    │   ├── KeyRefusal                  because of its API key
    │   │   ├── MissingApiKey
    │   │   ├── FailedAttempt                 (never raised itself)
    │   │   │   └── MalformedApiKey, InvalidApiKey
    │   │   ├── DisabledApiKey, RevokedApiKey, ExpiredApiKey
    │   │   └── OriginNotAllowed, AddressNotAllowed
    │   ├── SessionRefusal              because of its session
    │   │   └── MissingSession, InvalidSession, SessionRequired
    │   ├── MissingCredentials          neither key nor session was sent where either would do
    │   ├── InsufficientScope           key or session lacks a scope
    │   ├── AddressBlocked              too many failed attempts from the address
    │   └── RateLimitExceeded           the key's hourly cap is used up
    ├── ManagementError
    │   └── KeyNotFound, KeyNotActive, TooManyKeys
    └── TemporarilyUnavailable
        └── StoreUnavailable, LimiterUnavailable, HasherUnavailable, ChangePending
"""

from collections.abc import Iterable
from typing import NamedTuple


class KeyAuthError(Exception):
    """Root of everything this package raises on purpose. Never raised itself."""


class SetupError(KeyAuthError, ValueError):
    """A setting that cannot be right, a database that does not answer at start, a Redis that refuses. One sentence."""


class InvalidField(KeyAuthError, ValueError):
    """A value for a key or session that cannot be right.

    Attributes:
        field: name of the offending field.
        message: one sentence without the value.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class BadLine(NamedTuple):
    """What is wrong with a line of an import: its number (0: none of them), the column, and a sentence without the
    value."""

    line: int
    field: str | None
    message: str


class ImportRefused(KeyAuthError, ValueError):
    """Lines of an import cannot be right; nothing was written.

    Attributes:
        bad_lines: the first hundred, in their order.
        count: how many there are.
    """

    def __init__(self, bad_lines: Iterable[BadLine], count: int) -> None:
        self.bad_lines = tuple(bad_lines)
        self.count = count
        first = self.bad_lines[0]
        place = f", the first in line {first.line}" if first.line else ""
        field = "" if first.field is None else f"{first.field}: "
        super().__init__(f"{self.how_many}{place}: {field}{first.message}")

    @property
    def how_many(self) -> str:
        """``count`` in words."""
        return f"{self.count} mistake" if self.count == 1 else f"{self.count} mistakes"


class Refusal(KeyAuthError):
    """A request is refused. ``key_id`` is the public id of the key concerned, where one is known."""

    key_id: str | None = None


class KeyRefusal(Refusal):
    """Refused because of its API key."""

    def __init__(self, key_id: str | None = None) -> None:
        super().__init__(key_id or "")
        self.key_id = key_id


class MissingApiKey(KeyRefusal):
    """No API token was sent. Not a failed attempt.

    Attributes:
        sent_session: whether a Bearer value was sent that is no API token.
    """

    def __init__(self, sent_session: bool = False) -> None:
        super().__init__()
        self.sent_session = sent_session


class FailedAttempt(KeyRefusal):
    """What was sent opens nothing: it counts towards blocking the address. Never raised itself.

    Attributes:
        begins_block: whether this is the attempt that blocks the address.
    """

    def __init__(self, key_id: str | None = None, *, begins_block: bool = False) -> None:
        super().__init__(key_id)
        self.begins_block = begins_block


class MalformedApiKey(FailedAttempt):
    """What was sent is no token: wrong form, wrong checksum, or two different ones.

    Attributes:
        reason: half a sentence on what is wrong; never holds the value.
    """

    def __init__(self, reason: str, *, begins_block: bool = False) -> None:
        super().__init__(begins_block=begins_block)
        self.reason = reason


class InvalidApiKey(FailedAttempt):
    """Unknown id or wrong secret: one answer for both."""


class DisabledApiKey(KeyRefusal):
    """Right secret, but the key is switched off."""


class RevokedApiKey(KeyRefusal):
    """Right secret, but the key was revoked for good."""


class ExpiredApiKey(KeyRefusal):
    """Right secret, but the key has expired, or the secret was replaced and its overlap is over."""


class OriginNotAllowed(KeyRefusal):
    """The request's ``Origin`` is not in the key's list."""


class AddressNotAllowed(KeyRefusal):
    """The client's address is not in the key's list."""


class SessionRefusal(Refusal):
    """Refused because of its session."""


class MissingSession(SessionRefusal):
    """The route takes a session alone and none was sent."""


class SessionRequired(SessionRefusal):
    """The key is good; the route also wants a session and no Bearer value was sent."""


class InvalidSession(SessionRefusal):
    """The session is unknown, expired or revoked."""


class MissingCredentials(Refusal):
    """The route takes a key or a session and neither was sent."""


class InsufficientScope(Refusal):
    """Key or session lacks a scope, or a caller would grant more than it holds.

    Attributes:
        missing_scopes: the scopes that were wanted and are not held, sorted.
        reason: what they were wanted for, where that is not plain from the route; no full stop.
    """

    def __init__(self, missing_scopes: Iterable[str], key_id: str | None = None, reason: str | None = None) -> None:
        self.missing_scopes = sorted(missing_scopes)
        self.reason = reason
        super().__init__(", ".join(self.missing_scopes))
        self.key_id = key_id


class AddressBlocked(Refusal):
    """The client's address is blocked.

    Attributes:
        retry_after_s: whole seconds until the block ends, at least 1.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"for {retry_after_s} s")
        self.retry_after_s = retry_after_s


class RateLimitExceeded(Refusal):
    """The key's hourly cap is used up.

    Attributes:
        retry_after_s: whole seconds until a unit is free again, at least 1.
        hourly_limit: the cap, requests per hour.
    """

    def __init__(self, retry_after_s: int, hourly_limit: int, key_id: str | None = None) -> None:
        super().__init__(f"for {retry_after_s} s")
        self.retry_after_s = retry_after_s
        self.hourly_limit = hourly_limit
        self.key_id = key_id


class ManagementError(KeyAuthError):
    """A change or a look at a key that cannot be carried out."""


class KeyNotFound(ManagementError):
    """There is no such key, or it is not the caller's."""


class KeyNotActive(ManagementError):
    """The key is not active, so this cannot be done to it.

    Attributes:
        status: ``disabled``, ``expired`` or ``revoked``.
    """

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class TooManyKeys(ManagementError):
    """The owner has as many keys as ``max_keys_per_owner`` allows.

    Attributes:
        limit: the setting.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(str(limit))
        self.limit = limit


class TemporarilyUnavailable(KeyAuthError):
    """The database or the limiter cannot answer now. Never a failed attempt.

    Attributes:
        retry_after_s: whole seconds after which a retry is sensible.
    """

    retry_after_s: int = 2


class StoreUnavailable(TemporarilyUnavailable):
    """The database cannot answer."""


class LimiterUnavailable(TemporarilyUnavailable):
    """The limiter cannot answer."""


class HasherUnavailable(TemporarilyUnavailable):
    """Argon2 cannot run, for want of memory for instance, or too many wait for it."""


class ChangePending(TemporarilyUnavailable):
    """A change to a key is stored, but not every worker has been told of it yet.

    Attributes:
        holds_within_s: seconds within which it holds everywhere.
        token: the new token, where the change was a rotation: it can be had nowhere else.
    """

    def __init__(self, holds_within_s: int, token: str | None = None) -> None:
        super().__init__(f"holds everywhere within {holds_within_s} s")  # and no word of the token
        self.holds_within_s = holds_within_s
        self.token = token
        self.retry_after_s = holds_within_s
