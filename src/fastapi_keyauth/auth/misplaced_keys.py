"""API keys that were sent where they are not read: what to tell a client whose key is missing."""

from collections.abc import Mapping
from urllib.parse import unquote_plus

from fastapi_keyauth.domain.token_mistakes import decode, find_placeholder
from fastapi_keyauth.settings.settings import KeyAuthSettings

MAX_QUERY = 4096
"""Length up to which a query is examined, in bytes."""

# What other APIs and their SDKs send.
_OTHER_HEADERS = (
    *("api-key", "x-api-key", "apikey", "x-apikey", "api_key", "x-api_key", "api-token", "x-api-token"),
    *("x-auth-token", "x-access-token", "x-auth-key", "x-key", "x-goog-api-key", "x-functions-key"),
    *("ocp-apim-subscription-key", "x-authorization", "authentication"),
)
_QUERY_NAMES = frozenset({"api_key", "api-key", "apikey", "access_token", "x-api-key"})
_SCHEMES = {"token": "Token", "apikey": "ApiKey", "api-key": "Api-Key", "basic": "Basic", "digest": "Digest"}


class MisplacedKeys:
    """Finds out why a request has no API key. Names headers, schemes and parameters; never quotes a value.

    Args:
        settings: Settings of the KeyAuth.
    """

    def __init__(self, settings: KeyAuthSettings) -> None:
        self._header_name = settings.header_name
        self._start = f"{settings.key_prefix}_"
        self._accepts_bearer = settings.accept_bearer_keys
        self._other_headers = tuple(name for name in _OTHER_HEADERS if name != settings.header_name)
        self._query_names = _QUERY_NAMES | {settings.header_name}

    def find_mistake(self, headers: Mapping[bytes, bytes], query: bytes) -> str | None:
        """Return what was sent in place of a key, as half a sentence. None if nothing is recognized.

        Args:
            headers: Headers of the request, names in lower case.
            query: Raw query string.
        """
        authorization = headers.get(b"authorization", b"").decode("latin-1").strip()
        return (
            self._find_in_authorization(authorization)
            or self._find_in_headers(headers)
            or self._find_in_query(query[:MAX_QUERY].decode("latin-1"))
            or self._find_in_cookies(headers.get(b"cookie", b""))
        )

    def _find_in_authorization(self, text: str) -> str | None:
        scheme, _, value = text.partition(" ")
        value = value.strip()
        if scheme.lower() != "bearer":
            if text.startswith(self._start):
                return "the Authorization header has a key without the word 'Bearer' before it"
            name = _SCHEMES.get(scheme.lower())
            return None if name is None else f"the Authorization header has the scheme '{name}', which is not accepted"
        if not value:
            return None
        if not self._accepts_bearer:
            is_key = value.startswith(self._start)
            return "API keys are not accepted in the Authorization header" if is_key else None
        placeholder = find_placeholder(value)
        if placeholder is not None:
            return f"{placeholder} as Bearer value"
        if value[:7].lower() == "bearer ":
            return "the Authorization header has the word 'Bearer' twice"
        if decode(value)[:1] in "\"'`\u2018\u201c":
            return "the Bearer value is wrapped in quotes"
        return None

    def _find_in_headers(self, headers: Mapping[bytes, bytes]) -> str | None:
        for name in self._other_headers:
            if headers.get(name.encode("ascii"), b"").strip():
                return f"the '{name}' header is not read"
        return None

    def _find_in_query(self, query: str) -> str | None:
        for pair in query.split("&"):
            name, _, value = pair.partition("=")
            if unquote_plus(name).lower() in self._query_names or unquote_plus(value).startswith(self._start):
                return "a key in the query is not read, since queries end up in logs"
        return None

    def _find_in_cookies(self, cookies: bytes) -> str | None:
        return "a key in a cookie is not read" if f"={self._start}".encode("ascii") in cookies else None
