"""One table: error -> status, code, title and the sentence that says what to do (RFC 9457)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from starlette.responses import Response

from fastapi_keyauth import errors
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.settings.settings import KeyAuthSettings

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:fastapi-keyauth:"
_CONTENT_TYPE = (b"content-type", MEDIA_TYPE.encode())


@dataclass(frozen=True, slots=True, eq=False)
class ProblemType:
    """A row of the table of answers.

    Attributes:
        status: HTTP status.
        code: what programs compare.
        title: what it is, the same for every occurrence.
        detail: what to do, from the error's extensions and the header's name.
        extensions: attributes of the error that the body tells, besides ``retry_after_s``.
    """

    status: int
    code: str
    title: str
    detail: Callable[[Any, KeyAuthSettings], str]
    extensions: tuple[str, ...] = ()


class ProblemResponse(Response):
    """A problem as a response, with the ``code`` of its row."""

    def __init__(self, row: ProblemType, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        # Starlette's own would make a body and headers first, only for these to take their place.
        self.code = row.code
        self.status_code = row.status
        self.background = None
        self.body = body
        self.raw_headers = headers


def _missing_key(error: Any, settings: KeyAuthSettings) -> str:
    bearer = " or as 'Authorization: Bearer <key>'" if settings.accept_bearer_keys else ""
    sentence = f"Send your API key in the '{settings.header_name}' header{bearer}"
    if settings.accept_bearer_keys and getattr(error, "sent_session", False):
        sentence += (
            f"; the Bearer value that was sent does not start with '{settings.key_prefix}_', so it is no API key"
        )
    return sentence + "."


def _malformed_key(error: errors.MalformedApiKey, settings: KeyAuthSettings) -> str:
    return (
        f"What was sent is no API key: {error.reason}; send exactly one key, whole, as it was shown when it was made, "
        f"starting with '{settings.key_prefix}_'."
    )


def _scopes(error: errors.InsufficientScope, _settings: KeyAuthSettings) -> str:
    wanted = f"se credentials that hold: {', '.join(error.missing_scopes)}."
    return f"{error.reason}; u{wanted}" if error.reason else f"U{wanted}"


def _limited(error: errors.RateLimitExceeded, _settings: KeyAuthSettings) -> str:
    return (
        f"This key has used up its {error.hourly_limit} requests per hour; your key is fine, "
        f"try again in {error.retry_after_s} seconds."
    )


def _blocked(error: errors.AddressBlocked, _settings: KeyAuthSettings) -> str:
    return (
        "Too many requests with a wrong API key came from your address; correct the key and "
        f"try again in {error.retry_after_s} seconds."
    )


def _says(text: str) -> Callable[[Any, KeyAuthSettings], str]:
    return lambda _error, _settings: text


_AFTER = {
    "disabled": "enable it first",
    "expired": "give it a later expiry first, or make another key",
    "revoked": "make another key",
}

TABLE: dict[type[errors.KeyAuthError], ProblemType] = {
    errors.MissingApiKey: ProblemType(401, "missing_api_key", "No API key", _missing_key),
    errors.MalformedApiKey: ProblemType(401, "malformed_api_key", "Malformed API key", _malformed_key),
    errors.InvalidApiKey: ProblemType(
        401,
        "invalid_api_key",
        "Invalid API key",
        _says("No such API key exists; check that it was copied whole and belongs to this service."),
    ),
    errors.DisabledApiKey: ProblemType(
        401,
        "disabled_api_key",
        "API key disabled",
        _says("This API key is switched off; enable it or use another one."),
    ),
    errors.RevokedApiKey: ProblemType(
        401, "revoked_api_key", "API key revoked", _says("This API key was revoked for good; use another one.")
    ),
    errors.ExpiredApiKey: ProblemType(
        401,
        "expired_api_key",
        "API key expired",
        _says("This API key has expired or was replaced by a rotation; use the new one or make another."),
    ),
    errors.OriginNotAllowed: ProblemType(
        401,
        "origin_not_allowed",
        "Origin not allowed",
        _says("This API key may not be used from this origin; add the origin to the key's allowed_origins."),
    ),
    errors.AddressNotAllowed: ProblemType(
        401,
        "address_not_allowed",
        "Address not allowed",
        _says("This API key may not be used from this IP address; add the address to the key's allowed_ips."),
    ),
    errors.MissingSession: ProblemType(
        401,
        "missing_session",
        "No session",
        _says("Log in and send the session token as 'Authorization: Bearer <token>'."),
    ),
    errors.InvalidSession: ProblemType(
        401,
        "invalid_session",
        "Invalid session",
        _says("The session is unknown, expired or revoked; log in again and send the new token."),
    ),
    errors.SessionRequired: ProblemType(
        403,
        "session_required",
        "Session required",
        _says("Your API key is fine; this also needs a user's session token as 'Authorization: Bearer <token>'."),
    ),
    errors.MissingCredentials: ProblemType(
        401,
        "missing_credentials",
        "No credentials",
        lambda error, settings: _missing_key(error, settings).removesuffix(".") + ", or a session token as Bearer.",
    ),
    errors.InsufficientScope: ProblemType(
        403, "insufficient_scope", "Insufficient scope", _scopes, ("missing_scopes",)
    ),
    errors.AddressBlocked: ProblemType(429, "address_blocked", "Address blocked", _blocked),
    errors.RateLimitExceeded: ProblemType(429, "rate_limit_exceeded", "Rate limit exceeded", _limited),
    errors.KeyNotFound: ProblemType(
        404, "not_found", "Not found", _says("No such key exists among those that you may see; check its id.")
    ),
    errors.KeyNotActive: ProblemType(
        409,
        "key_not_active",
        "Key not active",
        lambda error, _: f"This key is {error.status}, so that cannot be done; {_AFTER[error.status]}.",
    ),
    errors.TooManyKeys: ProblemType(
        409,
        "too_many_keys",
        "Too many keys",
        lambda error, _: f"Revoke a key that is no longer used: an owner may have {error.limit} keys.",
    ),
    errors.ChangePending: ProblemType(
        503,
        "temporarily_unavailable",
        "Not everywhere yet",
        lambda error, _: (
            f"The change is stored, but some servers may act on the old state for {error.holds_within_s} seconds yet; "
            "wait that long before you rely on it."
        ),
        # ``token``: that of a rotation, which is lost if not told here.
        ("holds_within_s", "token"),
    ),
    errors.TemporarilyUnavailable: ProblemType(
        503,
        "temporarily_unavailable",
        "Temporarily unavailable",
        lambda error, _: f"The request could not be checked just now; try again in {error.retry_after_s} seconds.",
    ),
}


def find_problem_type(error: errors.KeyAuthError) -> ProblemType:
    """The row of an error: its own, or the nearest parent's."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    raise error


class ProblemRenderer:
    """FairSemaphore errors into responses."""

    def __init__(self, settings: KeyAuthSettings) -> None:
        self._settings = settings
        self._key_challenge = f'{settings.header_name} realm="{settings.realm}"'.encode()
        self._bearer_challenge = f'Bearer realm="{settings.realm}"'.encode()

    def response(self, error: errors.KeyAuthError, context: AuthContext) -> ProblemResponse:
        """The problem response to an error, with its challenges and ``Retry-After``.

        Raises:
            KeyAuthError: the error itself, where it is none that a client should see (a wrong setting).
        """
        row = find_problem_type(error)
        detail = row.detail(error, self._settings)
        headers = []
        retry_after_s = getattr(error, "retry_after_s", None)
        if retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % retry_after_s))
        extensions: dict[str, Any] = {}
        if row.extensions:
            extensions = {name: found for name in row.extensions if (found := getattr(error, name)) is not None}
            body = _body(row, detail, retry_after_s, extensions)
        else:
            body = _plain_body(row, detail, retry_after_s)
        if "token" in extensions or row.status == 404:  # of all these, the one that a cache may keep unasked
            headers.append((b"cache-control", b"no-store"))
        headers += ((b"content-length", b"%d" % len(body)), _CONTENT_TYPE)
        if row.status == 401:
            headers += [(b"www-authenticate", challenge) for challenge in self._challenges(error, context)]
        return ProblemResponse(row, body, headers)

    def _challenges(self, error: errors.KeyAuthError, context: AuthContext) -> list[bytes]:
        """What the route accepts, a line each. ``error`` only where a Bearer value was sent (RFC 6750 section 3.1)."""
        lines = [self._key_challenge] if context.takes_key else []
        if context.takes_session or (context.takes_key and self._settings.accept_bearer_keys):
            key_was_bearer = isinstance(error, errors.KeyRefusal) and context.credentials.token_is_bearer
            failed = isinstance(error, errors.InvalidSession) or key_was_bearer
            lines.append(self._bearer_challenge + (b', error="invalid_token"' if failed else b""))
        return lines


def _body(row: ProblemType, detail: str, retry_after_s: int | None, extensions: dict[str, Any]) -> bytes:
    code, title, status = row.code, row.title, row.status
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if retry_after_s is not None:
        body["retry_after_s"] = retry_after_s
    return json.dumps(body | extensions).encode()


@lru_cache(maxsize=512)
def _plain_body(row: ProblemType, detail: str, retry_after_s: int | None) -> bytes:
    """A body without extensions, remembered: floods of refusals are all alike, and JSON is half of what one costs."""
    return _body(row, detail, retry_after_s, {})
