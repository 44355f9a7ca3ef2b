"""Responses to errors: problem details, challenges and headers (RFC 9457). The table is in ``problem_details.py``."""

import json
from functools import lru_cache, partial
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from fastapi_keyauth import errors
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.http.problem_details import ProblemType, find_problem_type
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


class ProblemResponse(Response):
    """A problem as a response, with the ``code`` of its row."""

    def __init__(self, row: ProblemType, body: bytes, headers: RawHeaders) -> None:
        # Starlette's own would build a body and headers first, only for these to replace them.
        self.code = row.code
        self.status_code = row.status
        self.background = None
        self.body = body
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(body))]


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

    def body(self, error: errors.KeyAuthError) -> bytes:
        """Return the body of the response to an error."""
        return self._body(find_problem_type(error), error)

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
