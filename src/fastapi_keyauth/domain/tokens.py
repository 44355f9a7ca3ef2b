"""The form of tokens: generation, parsing, checksums. Pure functions, no I/O.

An API token is ``<prefix>_<environment>_<id>_<secret><crc>``, a session token ``ks_<secret><crc>``.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field
from hashlib import blake2b

from fastapi_keyauth.domain.token_mistakes import find_mistake

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 12
SECRET_LENGTH = 43  # 62**43 > 2**256
CRC_LENGTH = 6  # 62**6 > 2**32
SESSION_PREFIX = "ks"
MAX_TOKEN_LENGTH = 128  # longest well-formed token: 16 + 1 + 16 + 1 + 12 + 1 + 49

_ENVIRONMENT = "[a-z0-9]{1,16}"
_BASE62 = "[0-9A-Za-z]"


def token_pattern(prefix: str) -> re.Pattern[str]:
    """Return the regular expression that every API token with this prefix matches, for secret scanners."""
    return re.compile(
        rf"{re.escape(prefix)}_{_ENVIRONMENT}_{_BASE62}{{{ID_LENGTH}}}_{_BASE62}{{{SECRET_LENGTH + CRC_LENGTH}}}"
    )


TOKEN_PATTERN: re.Pattern[str] = token_pattern("ka")
"""Pattern of every API token with the default prefix ``ka``. RE2 and Rust's regex also support it."""

_WHOLE_TOKEN = re.compile(
    rf"[0-9A-Za-z]{{1,16}}_{_ENVIRONMENT}_({_BASE62}{{{ID_LENGTH}}})_{_BASE62}{{{SECRET_LENGTH + CRC_LENGTH}}}"
)
_ANY_TOKEN = re.compile(
    rf"[a-z0-9]_{_BASE62}{{{ID_LENGTH}}}_{_BASE62}{{{SECRET_LENGTH + CRC_LENGTH}}}"
    rf"|{SESSION_PREFIX}_{_BASE62}{{{SECRET_LENGTH + CRC_LENGTH}}}"
)


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """The parts of a well-formed API token. The repr shows no secret."""

    environment: str
    key_id: str
    secret: str = field(repr=False)


class TokenFormError(ValueError):
    """A malformed token. The message is a clause that completes a sentence, without the value."""


def base62(number: int, length: int) -> str:
    """Return a number in base62, most significant digit first, left-padded with ``0`` to ``length``."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    if number:
        raise ValueError("number does not fit")
    return "".join(reversed(digits))


def checksum(text: str) -> str:
    """Return the CRC-32 (as in zlib) of a text as six base62 characters."""
    return base62(zlib.crc32(text.encode("ascii")), CRC_LENGTH)


def new_key_id() -> str:
    """Generate a public key id: 12 random base62 characters (71 bits)."""
    return "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


def new_secret() -> str:
    """Generate a secret: 256 random bits as 43 base62 characters."""
    return base62(secrets.randbits(256), SECRET_LENGTH)


def format_token(prefix: str, environment: str, key_id: str, secret: str) -> str:
    """Return the API token that a client sends."""
    body = f"{prefix}_{environment}_{key_id}_{secret}"
    return body + checksum(body)


def new_session_token() -> str:
    """Generate a session token with 256 random bits."""
    body = f"{SESSION_PREFIX}_{new_secret()}"
    return body + checksum(body)


def is_session_token(value: str) -> bool:
    """Return whether a value is a well-formed built-in session token."""
    length = len(SESSION_PREFIX) + 1 + SECRET_LENGTH + CRC_LENGTH
    if len(value) != length or not value.startswith(f"{SESSION_PREFIX}_"):
        return False
    body, crc = value[:-CRC_LENGTH], value[-CRC_LENGTH:]
    return value.isascii() and value[3:].isalnum() and checksum(body) == crc


def token_digest(value: str) -> bytes:
    """Return the BLAKE2b digest of a complete token, well-formed or not. Caches use it as the key.

    For such a short text SHA-256 takes twice as long, mostly for setup in OpenSSL, and naming a shorter digest or the
    encoding takes longer than it saves.
    """
    return blake2b(value.encode()).digest()


def secret_tag(secret: str) -> str:
    """Return the first 32 bits of the secret's SHA-256, in hex. It rejects wrong secrets before Argon2 runs."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()[:8]


def hash_session_token(token: str) -> str:
    """Return the SHA-256 of a session token in hex, as the database stores it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def format_hint(prefix: str, environment: str, key_id: str, last4: str) -> str:
    """Return the displayable form of a token: everything except the secret, plus its last four characters."""
    return f"{prefix}_{environment}_{key_id}_…{last4}"


def is_same_secret(left: str, right: str) -> bool:
    """Return whether two tokens are equal, in constant time."""
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))


def has_token(text: str) -> bool:
    """Return whether a text contains what looks like a token, with any prefix, even if it is mistyped."""
    return _ANY_TOKEN.search(text) is not None


def find_key_id(token: str) -> str | None:
    """Return the key id in a token with any prefix. None if the token is malformed or its checksum is wrong."""
    match = _WHOLE_TOKEN.fullmatch(token)
    return match[1] if match is not None and checksum(token[:-CRC_LENGTH]) == token[-CRC_LENGTH:] else None


class TokenParser:
    """Parser of API tokens with one prefix. It holds a compiled pattern and no state."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._fullmatch = re.compile(
            rf"{re.escape(prefix)}_({_ENVIRONMENT})_({_BASE62}{{{ID_LENGTH}}})"
            rf"_({_BASE62}{{{SECRET_LENGTH}}}){_BASE62}{{{CRC_LENGTH}}}"
        ).fullmatch

    def parse(self, value: str) -> ParsedToken:
        """Split a token into its parts.

        Raises:
            TokenFormError: If the token is malformed or its checksum is wrong.
        """
        match = self._fullmatch(value) if len(value) <= MAX_TOKEN_LENGTH else None
        if match is None:
            raise TokenFormError(find_mistake(value, self._prefix, SESSION_PREFIX))
        if checksum(value[:-CRC_LENGTH]) != value[-CRC_LENGTH:]:
            raise TokenFormError("its checksum is wrong, so it was mistyped or cut off")
        return ParsedToken(match[1], match[2], match[3])
