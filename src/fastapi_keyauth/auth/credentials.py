"""What a request sends to say who it is. Reads headers, decides nothing."""

from collections.abc import Mapping, Sequence

from fastapi_keyauth.domain.tokens import is_same_secret
from fastapi_keyauth.settings.settings import KeyAuthSettings

Headers = Sequence[tuple[bytes, bytes]]
_WHITE_SPACE = b" \t"  # RFC 9110 section 5.6.3


class Credentials:
    """API token and session token of one request, unchecked. The repr shows neither.

    A plain class and no dataclass, as one is made for every request.

    Attributes:
        token: the API token, or None where none was sent.
        token_problem: half a sentence where what was sent is ambiguous.
        token_is_bearer: whether it came as a Bearer value.
        session: the session token, or None.
        session_is_ambiguous: whether several were sent.
    """

    __slots__ = ("session", "session_is_ambiguous", "token", "token_is_bearer", "token_problem")

    def __init__(
        self,
        token: str | None = None,
        token_problem: str | None = None,
        token_is_bearer: bool = False,
        session: str | None = None,
        session_is_ambiguous: bool = False,
    ) -> None:
        self.token = token
        self.token_problem = token_problem
        self.token_is_bearer = token_is_bearer
        self.session = session
        self.session_is_ambiguous = session_is_ambiguous

    @property
    def has_token(self) -> bool:
        """Whether anything was sent that calls itself an API token."""
        return self.token is not None or self.token_problem is not None

    @property
    def has_session(self) -> bool:
        """Whether any Bearer value was sent that is no API token."""
        return self.session is not None or self.session_is_ambiguous


class CredentialReader:
    """Reads credentials from the headers of a connection.

    Args:
        header_name: the header of API tokens, lower case.
        key_prefix: what Bearer values that are API tokens start with, followed by ``_``.
        accept_bearer_keys: whether there are such.
        imported_starts: what tokens of imported keys start with.
    """

    def __init__(
        self, header_name: str, key_prefix: str, accept_bearer_keys: bool, imported_starts: tuple[str, ...] = ()
    ) -> None:
        self._header_name = header_name.encode("ascii")
        self._token_starts = (f"{key_prefix}_", *imported_starts) if accept_bearer_keys else ()

    @classmethod
    def of(cls, settings: KeyAuthSettings) -> "CredentialReader":
        """The reader that the settings ask for."""
        # "*" is about the header alone: any Bearer value would else be a key, and none a session.
        starts = tuple(prefix for prefix in settings.imported_prefixes if prefix != "*")
        return cls(settings.header_name, settings.key_prefix, settings.accept_bearer_keys, starts)

    def read(self, headers: Headers, by_name: Mapping[bytes, bytes] | None = None) -> Credentials:
        """The credentials of a request. An empty header, which an unset variable sends, is none.

        Args:
            headers: all of them.
            by_name: the same as a mapping, where the caller has made it already.
        """
        if by_name is None:
            by_name = dict(headers)
        if len(by_name) != len(headers) or b"authorization" in by_name:
            return self._read_all(headers)
        # Most requests: no header twice, and one of ours at most.
        token = by_name.get(self._header_name)
        return Credentials(token.strip(_WHITE_SPACE).decode("latin-1") or None) if token else _NOTHING

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
        starts = self._token_starts
        as_bearer = [value for value in bearers if value.startswith(starts)]
        sessions = [value for value in bearers if not value.startswith(starts)]
        token, problem = self._one_token(in_header, as_bearer)
        return Credentials(
            token=token,
            token_problem=problem,
            token_is_bearer=bool(as_bearer),
            session=sessions[0] if len(sessions) == 1 else None,
            session_is_ambiguous=len(sessions) > 1,
        )

    def _one_token(self, in_header: list[str], as_bearer: list[str]) -> tuple[str | None, str | None]:
        if not any(in_header):
            in_header = []
        if len(in_header) > 1:
            return None, f"the {self._header_name.decode()} header was sent {len(in_header)} times"
        if len(as_bearer) > 1:
            return None, "several keys were sent as Bearer"
        if in_header and as_bearer and not is_same_secret(in_header[0], as_bearer[0]):
            return None, f"the {self._header_name.decode()} header and the Bearer value hold different keys"
        tokens = in_header or as_bearer
        return (tokens[0], None) if tokens else (None, None)


_NOTHING = Credentials()


def _text(value: bytes) -> str:
    # latin-1 takes any byte; what is no ASCII is no token, and is told so.
    return value.strip(_WHITE_SPACE).decode("latin-1")
