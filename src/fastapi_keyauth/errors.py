"""The error tree. It imports no other module of this package and says why a request failed.

Status codes and sentences are in ``http/problem_details.py``.

::

    KeyAuthError                      (never raised itself)
    ├── SetupError                    an invalid setting, or at startup a database or Redis that cannot be used
    ├── InvalidField                  an invalid value for a key or session (also a ValueError)
    ├── ImportRefused                 invalid lines in an import (also a ValueError)
    ├── Refusal                       a request is refused
    │   ├── KeyRefusal                  because of its API key
    │   │   ├── MissingApiKey
    │   │   ├── FailedAttempt                 (never raised itself)
    │   │   │   └── MalformedApiKey, InvalidApiKey
    │   │   ├── DisabledApiKey, RevokedApiKey, ExpiredApiKey, OwnerSuspended
    │   │   └── OriginNotAllowed, AddressNotAllowed
    │   ├── SessionRefusal              because of its session
    │   │   └── MissingSession, InvalidSession, SessionRequired
    │   ├── MissingCredentials          neither a key nor a session was sent, and the route accepts either
    │   ├── InsufficientScope           the key or the session lacks a scope
    │   ├── AddressBlocked              too many failed attempts from the address
    │   └── RateLimitExceeded           a limit of the key or of its owner has no room
    ├── ManagementError
    │   └── KeyNotFound, KeyNotActive, TooManyKeys
    └── TemporarilyUnavailable
        └── StoreUnavailable, LimiterUnavailable, HasherUnavailable, ChangePending
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, NamedTuple


class Problem(NamedTuple):
    """The response to an error, as the plugin would send it (RFC 9457). Added in 0.2.

    Attributes:
        status: HTTP status code.
        body: Members of the problem details, ready for JSON.
        headers: Header names and values: the content type, and whatever applies of ``Retry-After``,
            ``x-should-retry``, ``Cache-Control`` and ``WWW-Authenticate``. A name may occur twice in ``.items()``.
    """

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]


class KeyAuthError(Exception):
    """Root of everything this package raises on purpose. Never raised itself."""

    _problem: Callable[["KeyAuthError"], Problem] | None = None
    _is_reported = False
    """Whether it was reported as the end of a request, not as the refusal of a new one."""

    def problem(self) -> Problem:
        """Return the response that the plugin would send, for an exception handler of the application. Added in 0.2.

        The response to a request that a dependency or ``auth.protect`` refused has the names of the settings and the
        challenges of the route. The response to an error that other code raised has the default names.

        Returns:
            Status, body and headers. ``JSONResponse(problem.body, problem.status, problem.headers)`` sends them.

        Raises:
            KeyAuthError: The error itself, if it is not meant for clients, such as ``SetupError``.
        """
        if self._problem is not None:
            return self._problem(self)
        # The table of sentences knows the settings, so it lies above this module. It is read only when it is needed.
        problem: Problem = import_module("fastapi_keyauth.http.problem_renderer").describe(self)
        return problem


class SetupError(KeyAuthError, ValueError):
    """An invalid setting, or at startup a database or Redis that cannot be used. The message is one sentence."""


class InvalidField(KeyAuthError, ValueError):
    """An invalid value for a key or session.

    Attributes:
        field: Name of the invalid field.
        message: What is wrong with it, without the value.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class BadLine(NamedTuple):
    """An invalid line of an import.

    Attributes:
        line: Number of the line. 0 if no line is concerned.
        field: Name of the column, or None.
        message: What is wrong with it, without the value.
    """

    line: int
    field: str | None
    message: str


class ImportRefused(KeyAuthError, ValueError):
    """Lines of an import are invalid; nothing was written.

    Attributes:
        bad_lines: The first hundred invalid lines, in their order.
        count: Number of mistakes.
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
        """Number of mistakes, in words."""
        return f"{self.count} mistake" if self.count == 1 else f"{self.count} mistakes"


class Refusal(KeyAuthError):
    """A refused request.

    Attributes:
        key_id: Public id of the key concerned, or None if it is not known.
    """

    key_id: str | None = None


class KeyRefusal(Refusal):
    """A request refused because of its API key."""

    def __init__(self, key_id: str | None = None) -> None:
        super().__init__(key_id or "")
        self.key_id = key_id


class MissingApiKey(KeyRefusal):
    """No API token was sent. Not a failed attempt.

    Attributes:
        sent_session: Whether a Bearer value was sent that is not an API token.
        mistake: What was sent instead, as half a sentence without any value; None if nothing was recognized. Added in
            0.2.
    """

    def __init__(self, sent_session: bool = False, mistake: str | None = None) -> None:
        super().__init__()
        self.sent_session = sent_session
        self.mistake = mistake


class FailedAttempt(KeyRefusal):
    """A token that is not valid. Never raised itself.

    Attributes:
        is_counted: Whether the attempt counts towards blocking the address. False for a placeholder. Added in 0.2.
        begins_block: Whether this attempt is the one that blocks the address.
    """

    is_counted = True

    def __init__(self, key_id: str | None = None, *, begins_block: bool = False) -> None:
        super().__init__(key_id)
        self.begins_block = begins_block


class MalformedApiKey(FailedAttempt):
    """A value that is not a token: wrong form, wrong checksum, a placeholder, or two different tokens.

    Attributes:
        reason: What is wrong, as half a sentence that never contains the value.
    """

    def __init__(self, reason: str, *, begins_block: bool = False, is_counted: bool = True) -> None:
        super().__init__(begins_block=begins_block)
        self.reason = reason
        self.is_counted = is_counted


class InvalidApiKey(FailedAttempt):
    """An unknown id or a wrong secret. Both have the same response."""


class DisabledApiKey(KeyRefusal):
    """Correct secret of a disabled key."""


class RevokedApiKey(KeyRefusal):
    """Correct secret of a revoked key."""


class ExpiredApiKey(KeyRefusal):
    """Correct secret of an expired key, or a secret that a rotation replaced and whose overlap has ended."""


class OwnerSuspended(KeyRefusal):
    """Correct secret of a key whose owner is suspended. Added in 0.2."""


class OriginNotAllowed(KeyRefusal):
    """An ``Origin`` that is not in the key's list."""


class AddressNotAllowed(KeyRefusal):
    """A client address that is not in the key's list."""


class SessionRefusal(Refusal):
    """A request refused because of its session."""


class MissingSession(SessionRefusal):
    """No session was sent to a route that accepts only a session."""


class SessionRequired(SessionRefusal):
    """The key is valid; the route also requires a session, and no Bearer value was sent."""


class InvalidSession(SessionRefusal):
    """An unknown, expired or revoked session, or several different ones."""


class MissingCredentials(Refusal):
    """Neither a key nor a session was sent to a route that accepts either.

    Attributes:
        mistake: What was sent instead, as half a sentence without any value; None if nothing was recognized. Added in
            0.2.
    """

    mistake: str | None = None


class InsufficientScope(Refusal):
    """The key or session lacks a scope, or a caller would grant more than it holds.

    Attributes:
        missing_scopes: Required scopes that are not held, sorted.
        reason: What they are required for, as half a sentence; None if the route makes that clear.
    """

    def __init__(self, missing_scopes: Iterable[str], key_id: str | None = None, reason: str | None = None) -> None:
        self.missing_scopes = sorted(missing_scopes)
        self.reason = reason
        super().__init__(", ".join(self.missing_scopes))
        self.key_id = key_id


class AddressBlocked(Refusal):
    """The client's address is blocked.

    Attributes:
        retry_after_s: Whole seconds until the block ends, at least 1.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"for {retry_after_s} s")
        self.retry_after_s = retry_after_s


class RateLimitExceeded(Refusal):
    """A limit of the key or of its owner has no room for the cost; nothing was charged.

    Attributes:
        retry_after_s: Whole seconds until every limit has room, at least 1.
        hourly_limit: The key's limit of requests per hour that is named ``hour``; 0 if it has none.
        violated_policies: Names of the limits without room, as in the headers. Added in 0.2.
        reason: What these limits allow and what is left of them, in words. Added in 0.2.
        evidence: The key's row and the limiter's answer, for the headers. Added in 0.2.
    """

    def __init__(
        self,
        retry_after_s: int,
        hourly_limit: int,
        key_id: str | None = None,
        *,
        violated_policies: Iterable[str] = (),
        reason: str = "",
        evidence: Any = None,
    ) -> None:
        super().__init__(f"for {retry_after_s} s")
        self.retry_after_s = retry_after_s
        self.hourly_limit = hourly_limit
        self.key_id = key_id
        self.violated_policies = list(violated_policies)
        self.reason = reason
        self.evidence = evidence


class ManagementError(KeyAuthError):
    """A management call that cannot be carried out."""


class KeyNotFound(ManagementError):
    """The key does not exist, or it belongs to another owner."""


class KeyNotActive(ManagementError):
    """The key is not active, so it cannot be changed in this way.

    Attributes:
        status: ``disabled``, ``expired`` or ``revoked``.
    """

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class TooManyKeys(ManagementError):
    """The owner has the maximum number of keys.

    Attributes:
        limit: The setting ``max_keys_per_owner``.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(str(limit))
        self.limit = limit


class TemporarilyUnavailable(KeyAuthError):
    """The database or the limiter is unavailable. Never a failed attempt.

    Attributes:
        retry_after_s: Whole seconds after which a retry makes sense.
    """

    retry_after_s: int = 2


class StoreUnavailable(TemporarilyUnavailable):
    """The database is unavailable."""


class LimiterUnavailable(TemporarilyUnavailable):
    """The limiter is unavailable."""


class HasherUnavailable(TemporarilyUnavailable):
    """Argon2 cannot run, for example because memory is short, or too many requests wait for it."""


class ChangePending(TemporarilyUnavailable):
    """A change to a key is stored but not yet effective on all workers.

    Attributes:
        holds_within_s: Seconds within which it is effective on all workers.
        token: The new token if the change was a rotation, or None. It is shown only here.
    """

    def __init__(self, holds_within_s: int, token: str | None = None) -> None:
        super().__init__(f"effective on all workers within {holds_within_s} s")  # without the token
        self.holds_within_s = holds_within_s
        self.token = token
        self.retry_after_s = holds_within_s
