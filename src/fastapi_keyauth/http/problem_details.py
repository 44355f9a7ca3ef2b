"""One table: error -> status, code, title and the sentence that says what to do (RFC 9457)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from fastapi_keyauth import errors
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.settings.settings import KeyAuthSettings

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:fastapi-keyauth:"
MAX_SDK_WAIT_S = 60
"""Longest wait after which the SDKs of OpenAI and of compatible vendors may repeat a request by themselves."""

_SHOULD_NOT_RETRY = (b"x-should-retry", b"false")
_NO_STORE = (b"cache-control", b"no-store")
_CONTENT_TYPE = (b"content-type", MEDIA_TYPE.encode())
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    503: "api_error",
}
"""Status to the ``type`` that OpenAI's and Anthropic's SDKs know."""

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class ProblemType:
    """A row of the table of problems.

    Attributes:
        status: HTTP status code.
        code: Identifier that programs compare.
        title: Summary, the same for every occurrence.
        detail: Function of the error and the settings that returns the sentence for people.
        extensions: Attributes of the error that become members of the body, besides ``retry_after_s``.
        type: URI of the problem type. "": our own, which ends in the code.
    """

    status: int
    code: str
    title: str
    detail: Callable[[Any, KeyAuthSettings], str]
    extensions: tuple[str, ...] = ()
    type: str = ""


class ProblemResponse(Response):
    """A problem as a response, with the ``code`` of its row."""

    def __init__(self, row: ProblemType, body: bytes, headers: RawHeaders) -> None:
        # Starlette's own would build a body and headers first, only for these to replace them.
        self.code = row.code
        self.status_code = row.status
        self.background = None
        self.body = body
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]


def _where_to_send(settings: KeyAuthSettings) -> str:
    bearer = " or as 'Authorization: Bearer <key>'" if settings.accept_bearer_keys else ""
    return f"end your API key in the '{settings.header_name}' header{bearer}"


def _missing_key(error: errors.MissingApiKey | errors.MissingCredentials, settings: KeyAuthSettings) -> str:
    mistake = error.mistake
    if mistake is None and settings.accept_bearer_keys and getattr(error, "sent_session", False):
        mistake = f"the Bearer value does not start with '{settings.key_prefix}_', so it is not an API key"
    if mistake is None:
        return f"S{_where_to_send(settings)}."
    return f"{mistake[0].upper()}{mistake[1:]}; s{_where_to_send(settings)}."


def _missing_credentials(error: errors.MissingCredentials, settings: KeyAuthSettings) -> str:
    return _missing_key(error, settings).removesuffix(".") + ", or a session token as Bearer."


def _malformed_key(error: errors.MalformedApiKey, settings: KeyAuthSettings) -> str:
    return (
        f"The API key is malformed: {error.reason}; send one key, exactly as it was shown when it was created, "
        f"starting with '{settings.key_prefix}_'."
    )


def _scopes(error: errors.InsufficientScope, _settings: KeyAuthSettings) -> str:
    required = f"se a key or a session with the scopes that are required: {', '.join(error.missing_scopes)}."
    return f"{error.reason}; u{required}" if error.reason else f"U{required}"


def _limited(error: errors.RateLimitExceeded, _settings: KeyAuthSettings) -> str:
    reason = error.reason or f"its limit of {error.hourly_limit} requests per hour"
    verb = "are" if len(error.violated_policies) > 1 else "is"
    return f"This API key is valid, but {reason} {verb} used up; try again in {error.retry_after_s} seconds."


def _blocked(error: errors.AddressBlocked, _settings: KeyAuthSettings) -> str:
    return (
        "Too many requests with an invalid API key came from your address; correct the key and "
        f"try again in {error.retry_after_s} seconds."
    )


def _pending(error: errors.ChangePending, _settings: KeyAuthSettings) -> str:
    return (
        f"The change is stored, but some servers may use the old state for up to {error.holds_within_s} seconds; "
        "wait that long before you rely on it."
    )


def _says(text: str) -> Callable[[Any, KeyAuthSettings], str]:
    return lambda _error, _settings: text


_NOT_ACTIVE = {
    "disabled": "This key is disabled; enable it before rotating it.",
    "expired": "This key has expired; give it a later expiry before rotating it, or create a new key.",
    "revoked": "This key is revoked, so it cannot be changed; create a new key.",
}

TABLE: dict[type[errors.KeyAuthError], ProblemType] = {
    errors.MissingApiKey: ProblemType(401, "missing_api_key", "Missing API key", _missing_key),
    errors.MalformedApiKey: ProblemType(401, "malformed_api_key", "Malformed API key", _malformed_key),
    errors.InvalidApiKey: ProblemType(
        401,
        "invalid_api_key",
        "Invalid API key",
        _says("This API key is not valid; check that it was copied completely and belongs to this service."),
    ),
    errors.DisabledApiKey: ProblemType(
        401,
        "disabled_api_key",
        "API key disabled",
        _says("This API key is disabled; enable it or use another one."),
    ),
    errors.RevokedApiKey: ProblemType(
        401, "revoked_api_key", "API key revoked", _says("This API key was revoked; create a new one.")
    ),
    errors.ExpiredApiKey: ProblemType(
        401,
        "expired_api_key",
        "API key expired",
        _says("This API key has expired or was replaced by a rotation; use its new token or create a new key."),
    ),
    errors.OwnerSuspended: ProblemType(
        401,
        "owner_suspended",
        "Owner suspended",
        _says("The owner of this API key is suspended; contact the provider of this service."),
    ),
    errors.OriginNotAllowed: ProblemType(
        401,
        "origin_not_allowed",
        "Origin not allowed",
        _says("This API key cannot be used from this origin; add the origin to the key's allowed_origins."),
    ),
    errors.AddressNotAllowed: ProblemType(
        401,
        "address_not_allowed",
        "Address not allowed",
        _says("This API key cannot be used from this IP address; add the address to the key's allowed_ips."),
    ),
    errors.MissingSession: ProblemType(
        401,
        "missing_session",
        "Missing session",
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
        _says(
            "The API key is valid, but this also requires a user's session; "
            "send its token as 'Authorization: Bearer <token>'."
        ),
    ),
    errors.MissingCredentials: ProblemType(
        401,
        "missing_credentials",
        "Missing credentials",
        _missing_credentials,
    ),
    errors.InsufficientScope: ProblemType(
        403, "insufficient_scope", "Insufficient scope", _scopes, ("missing_scopes",)
    ),
    errors.AddressBlocked: ProblemType(429, "address_blocked", "Address blocked", _blocked),
    errors.RateLimitExceeded: ProblemType(
        429,
        "rate_limit_exceeded",
        "Rate limit exceeded",
        _limited,
        ("violated-policies",),
        "https://iana.org/assignments/http-problem-types#quota-exceeded",
    ),
    errors.KeyNotFound: ProblemType(
        404, "not_found", "Not found", _says("This key does not exist, or it is not one of yours; check its id.")
    ),
    errors.KeyNotActive: ProblemType(
        409,
        "key_not_active",
        "Key not active",
        lambda error, _: _NOT_ACTIVE[error.status],
    ),
    errors.TooManyKeys: ProblemType(
        409,
        "too_many_keys",
        "Too many keys",
        lambda error, _: (
            f"The owner has {error.limit} keys, which is the maximum; revoke a key that is no longer used."
        ),
    ),
    errors.ChangePending: ProblemType(
        503,
        "temporarily_unavailable",
        "Not effective everywhere yet",
        _pending,
        # ``token`` is that of a rotation, which is shown only here.
        ("holds_within_s", "token"),
    ),
    errors.TemporarilyUnavailable: ProblemType(
        503,
        "temporarily_unavailable",
        "Temporarily unavailable",
        lambda error, _: f"The request could not be checked; try again in {error.retry_after_s} seconds.",
    ),
}


def find_problem_type(error: errors.KeyAuthError) -> ProblemType:
    """Return the row of an error: its own, or that of its nearest parent.

    Raises:
        KeyAuthError: The error itself, if it is not meant for clients, such as a ``SetupError``.
    """
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    raise error


class ProblemRenderer:
    """Turns errors into responses with the names of the settings."""

    def __init__(self, settings: KeyAuthSettings) -> None:
        self._settings = settings
        self._key_challenge = f'{settings.header_name} realm="{settings.realm}"'.encode()
        self._bearer_challenge = f'Bearer realm="{settings.realm}"'.encode()

    def response(self, error: errors.KeyAuthError, context: AuthContext) -> ProblemResponse:
        """Return the response to an error, with its challenges and ``Retry-After``.

        Raises:
            KeyAuthError: The error itself, if it is not meant for clients, such as a ``SetupError``.
        """
        row = find_problem_type(error)
        return ProblemResponse(row, self._body(row, error), _headers(row, error, self._challenges(row, error, context)))

    def bind(self, error: errors.KeyAuthError, context: AuthContext) -> None:
        """Make ``error.problem()`` return what ``response`` would send."""
        if error._problem is None:
            # Not the context: it keeps the error, and a cycle would wait for the garbage collector.
            challenges = self._challenges(find_problem_type(error), error, context)
            error._problem = partial(self.problem, challenges=challenges)

    def problem(self, error: errors.KeyAuthError, challenges: list[bytes] | None = None) -> errors.Problem:
        """Return the response to an error as plain values.

        Args:
            error: The error.
            challenges: Values of ``WWW-Authenticate`` for a 401. None: those of a route that accepts an API key.

        Raises:
            KeyAuthError: The error itself, if it is not meant for clients, such as a ``SetupError``.
        """
        row = find_problem_type(error)
        if challenges is None:
            challenges = [self._key_challenge, self._bearer_challenge] if row.status == 401 else []
        headers = Headers(raw=_headers(row, error, challenges))
        return errors.Problem(row.status, json.loads(self._body(row, error)), headers)

    def _body(self, row: ProblemType, error: errors.KeyAuthError) -> bytes:
        detail = row.detail(error, self._settings)
        retry_after_s = getattr(error, "retry_after_s", None)
        if not row.extensions:
            return _plain_body(row, detail, retry_after_s)
        values = {name: getattr(error, name.replace("-", "_")) for name in row.extensions}
        extensions = {name: value for name, value in values.items() if value is not None}
        return _build_body(row, detail, retry_after_s, extensions)

    def _challenges(self, row: ProblemType, error: errors.KeyAuthError, context: AuthContext) -> list[bytes]:
        """Return one challenge for each scheme that the route accepts; none if the status is not 401.

        A challenge has the parameter ``error`` only if a Bearer value was sent (RFC 6750 section 3.1).
        """
        if row.status != 401:
            return []
        lines = [self._key_challenge] if context.takes_key else []
        if context.takes_session or (context.takes_key and self._settings.accept_bearer_keys):
            key_was_bearer = isinstance(error, errors.KeyRefusal) and context.credentials.token_is_bearer
            failed = isinstance(error, errors.InvalidSession) or key_was_bearer
            lines.append(self._bearer_challenge + (b', error="invalid_token"' if failed else b""))
        return lines


def _headers(row: ProblemType, error: errors.KeyAuthError, challenges: list[bytes]) -> RawHeaders:
    headers = [_CONTENT_TYPE]
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
        if row.status == 429 and retry_after_s > MAX_SDK_WAIT_S:
            headers.append(_SHOULD_NOT_RETRY)
    # A cache may keep a 404 without being asked to (RFC 9110 section 15.1).
    if row.status in (404, 409) or getattr(error, "token", None) is not None:
        headers.append(_NO_STORE)
    headers += [(b"www-authenticate", challenge) for challenge in challenges]
    return headers


def _build_body(row: ProblemType, detail: str, retry_after_s: int | None, extensions: dict[str, Any]) -> bytes:
    body: dict[str, Any] = {
        "type": row.type or TYPE_PREFIX + row.code,
        "title": row.title,
        "status": row.status,
        "detail": detail,
        "code": row.code,
    }
    if retry_after_s is not None:
        body["retry_after_s"] = retry_after_s
    body |= extensions
    # What the SDKs of OpenAI and of compatible vendors show to their users.
    body["error"] = {"message": detail, "type": _ERROR_TYPES[row.status], "code": row.code}
    return json.dumps(body).encode()


@lru_cache(maxsize=512)
def _plain_body(row: ProblemType, detail: str, retry_after_s: int | None) -> bytes:
    """Return a body without extensions from a cache: floods of refusals are alike, and JSON is half of their cost."""
    return _build_body(row, detail, retry_after_s, {})


def describe(error: errors.KeyAuthError) -> errors.Problem:
    """Return the response to an error that was raised outside a request of a known KeyAuth, with the default names."""
    return _default_renderer().problem(error)


@lru_cache(maxsize=1)
def _default_renderer() -> ProblemRenderer:
    return ProblemRenderer(KeyAuthSettings.model_construct())  # the defaults, whatever the environment says
