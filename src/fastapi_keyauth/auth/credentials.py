"""Credentials of a request, read from its headers and not checked yet."""

from collections.abc import Sequence

from fastapi_keyauth.domain.tokens import is_same_secret
from fastapi_keyauth.settings.settings import KeyAuthSettings

Headers = Sequence[tuple[bytes, bytes]]
_WHITE_SPACE = b" \t"  # RFC 9110 section 5.6.3


class Credentials:
    """API token and session token of one request, unchecked. The repr shows neither.

    Not a dataclass, since one is created for every request.

    Attributes:
        token: The API token, or None if none was sent.
        token_problem: Half a sentence if what was sent is ambiguous.
        token_is_bearer: Whether the API token was sent as Bearer value.
        session: The session token, or None.
        session_is_unusable: Whether several different ones were sent, or an API token that is not accepted as Bearer
            value.
    """

    # Attributes of the class are the values of most requests, which send a token in its header and no more.
    token_problem: str | None = None
    token_is_bearer: bool = False
    session: str | None = None
    session_is_unusable: bool = False

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    @property
    def has_token(self) -> bool:
        """Whether something was sent as an API token."""
        return self.token is not None or self.token_problem is not None

    @property
    def has_session(self) -> bool:
        """Whether a Bearer value was sent that is not an API token."""
        return self.session is not None or self.session_is_unusable


class CredentialReader:
    """Reads credentials from the headers of a connection.

    Args:
        header_name: Name of the header for API tokens, in lower case.
        key_prefix: What API tokens start with, followed by ``_``.
        accept_bearer_keys: Whether an API token may be sent as Bearer value.
        imported_starts: What tokens of imported keys start with.
    """

    def __init__(
        self, header_name: str, key_prefix: str, accept_bearer_keys: bool, imported_starts: tuple[str, ...] = ()
    ) -> None:
        self._header_name = header_name.encode("ascii")
        self._relevant = frozenset({self._header_name, b"origin", b"authorization"})
        self._token_starts = (f"{key_prefix}_", *imported_starts)
        self._accepts_bearer = accept_bearer_keys

    @classmethod
    def of(cls, settings: KeyAuthSettings) -> "CredentialReader":
        """Return the reader for the settings."""
        # "*" concerns only the header: otherwise any Bearer value would be a key, and none a session.
        starts = tuple(prefix for prefix in settings.imported_prefixes if prefix != "*")
        return cls(settings.header_name, settings.key_prefix, settings.accept_bearer_keys, starts)

    def read(self, headers: Headers) -> tuple[Credentials, str | None]:
        """Return the credentials of a request, and the value of its header ``Origin``, if it has one.

        An empty header, as sent by a client with an unset variable, is missing. Several origins are joined, so none of
        them passes for the only one.

        Args:
            headers: All headers.
        """
        # In one pass, which takes half as long as to put them into a dictionary.
        relevant, token, origin = self._relevant, None, None
        for name, value in headers:
            if name in relevant:
                if name == self._header_name and token is None:
                    token = value
                elif name == b"origin" and origin is None:
                    origin = value
                else:  # a Bearer value, or a second header of the same name
                    break
        else:  # most requests: nothing occurs twice, and the key's header is the only one that matters
            credentials = Credentials(token.strip(_WHITE_SPACE).decode("latin-1") or None) if token else _NOTHING
            return credentials, origin.decode("latin-1") if origin else None
        origin = b", ".join([value for name, value in headers if name == b"origin"])
        return self._read_all(headers), origin.decode("latin-1") or None

    def _read_all(self, headers: Headers) -> Credentials:
        in_header: list[str] = []
        bearers: list[str] = []
        for name, value in headers:
            if name == self._header_name:
                in_header.append(_text(value))
            elif name == b"authorization":
                scheme, _, rest = value.strip(_WHITE_SPACE).partition(b" ")
                if scheme.lower() == b"bearer" and rest.strip(_WHITE_SPACE):
                    bearers.append(_text(rest))
        keys = [value for value in bearers if value.startswith(self._token_starts)]
        sessions = list(dict.fromkeys(value for value in bearers if not value.startswith(self._token_starts)))
        as_bearer = keys if self._accepts_bearer else []
        token, problem = self._one_token(in_header, as_bearer)
        # A key that is not accepted as Bearer value is not a session either: a resolver may send it elsewhere.
        is_unusable = len(sessions) > 1 or (bool(keys) and not self._accepts_bearer)
        found = Credentials(token)
        found.token_problem = problem
        found.token_is_bearer = bool(as_bearer)
        found.session = sessions[0] if sessions and not is_unusable else None
        found.session_is_unusable = is_unusable
        return found

    def _one_token(self, in_header: list[str], as_bearer: list[str]) -> tuple[str | None, str | None]:
        if not any(in_header):
            in_header = []
        if len(in_header) > 1:
            return None, f"the '{self._header_name.decode()}' header was sent {len(in_header)} times"
        if len(as_bearer) > 1:
            return None, "several keys were sent as Bearer values"
        if in_header and as_bearer and not is_same_secret(in_header[0], as_bearer[0]):
            return None, f"the '{self._header_name.decode()}' header and the Bearer value are different keys"
        tokens = in_header or as_bearer
        return (tokens[0], None) if tokens else (None, None)


_NOTHING = Credentials()


def _text(value: bytes) -> str:
    # Latin-1 accepts any byte. A value that is not ASCII is not a token, and the response says so.
    return value.strip(_WHITE_SPACE).decode("latin-1")
