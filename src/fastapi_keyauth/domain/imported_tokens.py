"""Hashes and tokens from other systems: parsing, lookup and verification. Pure functions, no I/O."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerifyMismatchError

Scheme = Literal["sha256", "sha512", "bcrypt", "argon2"]
Hashed = Literal["token", "secret"]

OWN = "own"
"""Scheme of a hash of our own that does not cover the whole token."""
SEPARATORS = "_-.:"
MAX_PARTS = 8
"""Maximum number of separators in a token that may end its public part."""
MIN_TOKEN_LENGTH = 16
MAX_TOKEN_LENGTH = 512
MAX_PUBLIC_LENGTH = 200
MAX_BCRYPT_PUBLIC_LENGTH = 40
"""bcrypt reads only 72 bytes: with a longer public part, they would contain too little of the secret."""
MAX_BCRYPT_COST = 16
"""Maximum base-2 logarithm of the number of rounds. 16 takes about 4 s."""
MAX_ARGON2_MEMORY_KIB = 1_048_576
MAX_ARGON2_TIME_COST = 100
MAX_ARGON2_LANES = 64
MAX_HASH_LENGTH = 255
_BCRYPT_BYTES = 72

_HEX = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_ARGON2 = re.compile(
    r"\$argon2(id|i|d)(\$v=\d{1,3})?\$m=\d{1,10},t=\d{1,10},p=\d{1,8}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}"
)  # a salt has at least 8 bytes, a hash at least 4
_PUBLIC_DOMAIN = b"keyauth public part\0"  # no token starts with it, so the two kinds of lookup cannot collide
_SALTED: frozenset[str] = frozenset({"bcrypt", "argon2"})
_argon2 = PasswordHasher()


@dataclass(frozen=True, slots=True)
class ForeignHash:
    """A hash from another system, in its usual text form."""

    scheme: Scheme
    text: str

    @property
    def is_salted(self) -> bool:
        """Whether the hash has a salt, so that a token alone cannot find it."""
        return self.scheme in _SALTED


class ForeignHashError(ValueError):
    """A hash that cannot be imported. The message never contains the value: it may be a token sent by mistake."""


def parse_hash(text: str) -> ForeignHash:
    """Parse a hash and detect its scheme.

    Raises:
        ForeignHashError: If its form is unknown, or if it is too expensive to verify.
    """
    text = text.strip()
    if _HEX.fullmatch(text.lower()):
        return ForeignHash("sha256" if len(text) == 64 else "sha512", text.lower())
    bcrypt = _BCRYPT.fullmatch(text)
    if bcrypt is not None:
        if not 4 <= int(bcrypt[1]) <= MAX_BCRYPT_COST:
            raise ForeignHashError(f"a bcrypt hash has a cost from 4 to {MAX_BCRYPT_COST}")
        if find_spec("bcrypt") is None:
            raise ForeignHashError("bcrypt hashes need the extra 'bcrypt'")
        return ForeignHash("bcrypt", text)
    if text.startswith("$argon2") and len(text) <= MAX_HASH_LENGTH:
        _check_argon2(text)
        return ForeignHash("argon2", text)
    raise ForeignHashError("must be a SHA-256 or SHA-512 in hex, a bcrypt hash or an Argon2 hash ($argon2id$...)")


def _check_argon2(text: str) -> None:
    try:
        cost = extract_parameters(text) if _ARGON2.fullmatch(text) else None
    except (InvalidHashError, ValueError):
        cost = None
    if cost is None:
        raise ForeignHashError("is not a well-formed Argon2 hash")
    if (
        not 1 <= cost.time_cost <= MAX_ARGON2_TIME_COST
        or not 1 <= cost.parallelism <= MAX_ARGON2_LANES
        or not 8 * cost.parallelism <= cost.memory_cost <= MAX_ARGON2_MEMORY_KIB
    ):
        raise ForeignHashError(
            f"an Argon2 hash may take {MAX_ARGON2_MEMORY_KIB} KiB, t={MAX_ARGON2_TIME_COST}, p={MAX_ARGON2_LANES}"
        )


def is_token_text(text: str) -> bool:
    """Return whether a text could be a token: 16 to 512 printable ASCII characters without spaces."""
    return MIN_TOKEN_LENGTH <= len(text) <= MAX_TOKEN_LENGTH and all("!" <= character <= "~" for character in text)


def public_parts(text: str) -> list[str]:
    """Return the possible public parts of a token: the text before each of its first eight separators."""
    ends = [index for index, character in enumerate(text) if character in SEPARATORS][:MAX_PARTS]
    return [text[:end] for end in ends if end]


def is_public_part(text: str) -> bool:
    """Return whether a token that starts with this text and a separator can be found by it."""
    is_plain = all("!" <= character <= "~" for character in text)
    inner = sum(character in SEPARATORS for character in text)
    return 1 <= len(text) <= MAX_PUBLIC_LENGTH and is_plain and inner < MAX_PARTS


def public_lookup(public: str) -> str:
    """Return the lookup of a secret with this public part."""
    return hashlib.sha256(_PUBLIC_DOMAIN + public.encode("ascii")).hexdigest()


def lookup_key(found: ForeignHash, public: str | None) -> str:
    """Return the lookup of a hash: made from the public part if there is one, otherwise from the hash of the token."""
    return found.text[:64] if public is None else public_lookup(public)


def candidate_lookups(text: str) -> dict[str, str | None]:
    """Return all lookups that may find the row of a token, most likely first, each with its public part."""
    token = text.encode("ascii")
    found: dict[str, str | None] = {
        hashlib.sha256(token).hexdigest(): None,
        hashlib.sha512(token).hexdigest()[:64]: None,
    }
    found.update((public_lookup(part), part) for part in reversed(public_parts(text)))
    return found


def scheme_name(scheme: Scheme, hashed: Hashed) -> str:
    """Return the scheme as a row stores it, including whether the whole token or only the secret was hashed."""
    return scheme if hashed == "token" else f"{scheme}:secret"


def hashed_part(text: str, scheme: str | None, public: str | None) -> str:
    """Return the part of a token that is hashed.

    That is the whole token, or the text after the public part and one separator. bcrypt hashes only its first 72 bytes.
    """
    name, *details = (scheme or OWN).split(":")
    part = text[len(public) + 1 :] if public is not None and "secret" in details else text
    return part[:_BCRYPT_BYTES] if name == "bcrypt" or "72" in details else part


def adopted_scheme(text: str, scheme: str, public: str | None) -> str | None:
    """Return the scheme of our own hash, which replaces an imported hash at the first use.

    Our hash covers exactly the part that the imported hash covered. The first token sent may differ from the issued
    token in the parts that the imported hash does not cover: the separator, or the text beyond bcrypt's 72 bytes.

    Returns:
        The scheme. None if the hash covers the whole token.
    """
    details = [OWN]
    if public is not None and scheme.endswith(":secret"):
        details.append("secret")
    if scheme.startswith("bcrypt") and len(hashed_part(text, scheme, public)) == _BCRYPT_BYTES:
        details.append("72")
    return ":".join(details) if len(details) > 1 else None


def is_adopted(scheme: str | None) -> bool:
    """Return whether the hash of a secret is our own, instead of the imported one."""
    return scheme is None or scheme.partition(":")[0] == OWN


def is_slow(scheme: str) -> bool:
    """Return whether verification is slow enough to require a thread."""
    return scheme.partition(":")[0] in _SALTED


def verify(scheme: str, hashed: str, text: str) -> bool:
    """Return whether a text matches a hash. In constant time, as far as the scheme allows.

    Args:
        scheme: The scheme, as returned by ``scheme_name``.
        hashed: The hash.
        text: The part of the token that ``hashed_part`` returns.

    Raises:
        VerificationError, MemoryError: If Argon2 cannot run.
        ModuleNotFoundError: If bcrypt is not installed.
    """
    token = text.encode("ascii")
    match scheme.partition(":")[0]:
        case "sha256":
            return hmac.compare_digest(hashlib.sha256(token).hexdigest(), hashed)
        case "sha512":
            return hmac.compare_digest(hashlib.sha512(token).hexdigest(), hashed)
        case "bcrypt":
            import bcrypt  # noqa: PLC0415  # an extra

            try:
                return bcrypt.checkpw(token, hashed.encode("ascii"))
            except ValueError:  # an invalid salt
                return False
        case "argon2":
            try:
                return _argon2.verify(hashed, text)
            except (VerifyMismatchError, InvalidHashError):
                return False
    return False


class ImportedForms:
    """Forms of the values that are looked up as tokens of imported keys.

    Args:
        prefixes: Prefixes of imported tokens; ``*``: any value.
        own_prefix: Prefix of our own tokens. With ``*``, mistyped tokens of our own are not looked up.
    """

    def __init__(self, prefixes: Sequence[str], own_prefix: str) -> None:
        self._starts = tuple(prefix for prefix in prefixes if prefix != "*")
        self._takes_any = "*" in prefixes
        self._own_start = f"{own_prefix}_"

    def takes(self, text: str) -> bool:
        """Return whether to look up a value."""
        is_named = text.startswith(self._starts) or (self._takes_any and not text.startswith(self._own_start))
        return is_named and is_token_text(text)
