"""One table: error -> status, code, title and the sentence that says what to do (RFC 9457)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi_keyauth import errors
from fastapi_keyauth.settings.settings import KeyAuthSettings


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


def _seconds(number: int) -> str:
    return "1 second" if number == 1 else f"{number} seconds"


def _limited(error: errors.RateLimitExceeded, _settings: KeyAuthSettings) -> str:
    reason = error.reason or f"its limit of {error.hourly_limit} requests per hour is used up"
    return f"This API key is valid, but {reason}; try again in {_seconds(error.retry_after_s)}."


def _blocked(error: errors.AddressBlocked, _settings: KeyAuthSettings) -> str:
    return (
        "Too many requests with an invalid API key came from your address; correct the key and "
        f"try again in {_seconds(error.retry_after_s)}."
    )


def _pending(error: errors.ChangePending, _settings: KeyAuthSettings) -> str:
    return (
        f"The change is stored, but some servers may use the old state for up to {_seconds(error.holds_within_s)}; "
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
        lambda error, _: f"The request could not be checked; try again in {_seconds(error.retry_after_s)}.",
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
