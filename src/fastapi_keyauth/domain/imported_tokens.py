"""Hashes and tokens that were made elsewhere: parse_hash a hash, find a token's row, verify. Pure functions, no I/O."""

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
"""The scheme of a hash of ours that does not cover the whole token."""
SEPARATORS = "_-.:"
MAX_PARTS = 8
"""Separators of a token before which a public part is looked for."""
MIN_TOKEN_LENGTH = 16
MAX_TOKEN_LENGTH = 512
MAX_PUBLIC_LENGTH = 200
MAX_BCRYPT_PUBLIC_LENGTH = 40
"""bcrypt looks at 72 bytes: with a longer public part too little of the secret would be among them."""
MAX_BCRYPT_COST = 16
"""Two to the power of it rounds: 16 takes about 4 s."""
MAX_ARGON2_MEMORY_KIB = 1_048_576
MAX_ARGON2_TIME_COST = 100
MAX_ARGON2_LANES = 64
MAX_HASH_LENGTH = 255
_BCRYPT_BYTES = 72

_HEX = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_ARGON2 = re.compile(
    r"\$argon2(id|i|d)(\$v=\d{1,3})?\$m=\d{1,10},t=\d{1,10},p=\d{1,8}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}"
)  # a salt has 8 bytes at least, a hash 4
_PUBLIC_DOMAIN = b"keyauth public part\0"  # no token begins so: the two kinds of lookup never meet
_SALTED: frozenset[str] = frozenset({"bcrypt", "argon2"})
_argon2 = PasswordHasher()


@dataclass(frozen=True, slots=True)
class ForeignHash:
    """A hash from elsewhere, in its usual form."""

    scheme: Scheme
    text: str

    @property
    def is_salted(self) -> bool:
        """Whether it cannot be found by the token alone."""
        return self.scheme in _SALTED


class ForeignHashError(ValueError):
    """A hash that cannot be taken over. The message never holds it: it may be a token by mistake."""


def parse_hash(text: str) -> ForeignHash:
    """The hash, by its form.

    Raises:
        ForeignHashError: it has no form that is known, or would cost too much to verify.
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
        raise ForeignHashError("is no well-formed Argon2 hash")
    if (
        not 1 <= cost.time_cost <= MAX_ARGON2_TIME_COST
        or not 1 <= cost.parallelism <= MAX_ARGON2_LANES
        or not 8 * cost.parallelism <= cost.memory_cost <= MAX_ARGON2_MEMORY_KIB
    ):
        raise ForeignHashError(
            f"an Argon2 hash may take {MAX_ARGON2_MEMORY_KIB} KiB, t={MAX_ARGON2_TIME_COST}, p={MAX_ARGON2_LANES}"
        )


def is_token_text(text: str) -> bool:
    """Whether ``text`` could be a token at all: 16 to 512 printable characters of ASCII, none of them a space."""
    return MIN_TOKEN_LENGTH <= len(text) <= MAX_TOKEN_LENGTH and all("!" <= character <= "~" for character in text)


def public_parts(text: str) -> list[str]:
    """What may be a token's public part: all that comes before each of its first eight separators."""
    ends = [index for index, character in enumerate(text) if character in SEPARATORS][:MAX_PARTS]
    return [text[:end] for end in ends if end]


def is_public_part(text: str) -> bool:
    """Whether a token that begins so, and goes on with a separator, would be found by it."""
    is_plain = all("!" <= character <= "~" for character in text)
    inner = sum(character in SEPARATORS for character in text)
    return 1 <= len(text) <= MAX_PUBLIC_LENGTH and is_plain and inner < MAX_PARTS


def public_lookup(public: str) -> str:
    """What a secret with this public part is found by."""
    return hashlib.sha256(_PUBLIC_DOMAIN + public.encode("ascii")).hexdigest()


def lookup_key(found: ForeignHash, public: str | None) -> str:
    """What the row of a hash is found by: the public part where there is one, else the hash of the token itself."""
    return found.text[:64] if public is None else public_lookup(public)


def candidate_lookups(text: str) -> dict[str, str | None]:
    """Everything that the row of a presented token may be found by, the likeliest first, each with its public part."""
    token = text.encode("ascii")
    found: dict[str, str | None] = {
        hashlib.sha256(token).hexdigest(): None,
        hashlib.sha512(token).hexdigest()[:64]: None,
    }
    found.update((public_lookup(part), part) for part in reversed(public_parts(text)))
    return found


def scheme_name(scheme: Scheme, hashed: Hashed) -> str:
    """How a row says what its hash is of."""
    return scheme if hashed == "token" else f"{scheme}:secret"


def hashed_part(text: str, scheme: str | None, public: str | None) -> str:
    """Return the part of a token that is hashed.

    That is all of it, or what follows the public part and one separator. Of either, bcrypt hashes the first 72 bytes.
    """
    name, *details = (scheme or OWN).split(":")
    part = text[len(public) + 1 :] if public is not None and "secret" in details else text
    return part[:_BCRYPT_BYTES] if name == "bcrypt" or "72" in details else part


def adopted_scheme(text: str, scheme: str, public: str | None) -> str | None:
    """Return how the row says what our hash is of, which replaces an imported one at the first use.

    Ours covers exactly what the imported hash covered. What was sent first may differ from the token that was issued
    where the imported hash does not look: in the separator, or beyond bcrypt's 72 bytes.

    Returns:
        None: the whole token.
    """
    details = [OWN]
    if public is not None and scheme.endswith(":secret"):
        details.append("secret")
    if scheme.startswith("bcrypt") and len(hashed_part(text, scheme, public)) == _BCRYPT_BYTES:
        details.append("72")
    return ":".join(details) if len(details) > 1 else None


def is_adopted(scheme: str | None) -> bool:
    """Return whether a secret's hash is ours, and not the imported one."""
    return scheme is None or scheme.partition(":")[0] == OWN


def is_slow(scheme: str) -> bool:
    """Whether verifying takes so long that it belongs into a thread."""
    return scheme.partition(":")[0] in _SALTED


def verify(scheme: str, hashed: str, text: str) -> bool:
    """Whether ``text`` is what was hashed. In constant time, as far as the scheme allows.

    Args:
        scheme: as ``scheme_name`` says it.
        hashed: the hash.
        text: ``hashed_part`` of the token.

    Raises:
        VerificationError, MemoryError: Argon2 cannot run.
        ModuleNotFoundError: bcrypt is not installed.
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
            except ValueError:  # a salt that none can be
                return False
        case "argon2":
            try:
                return _argon2.verify(hashed, text)
            except (VerifyMismatchError, InvalidHashError):
                return False
    return False


class ImportedForms:
    """Which values are looked up as tokens of imported keys.

    Args:
        prefixes: what they start with; ``*``: anything.
        own_prefix: what our own start with: a mistyped one of those is not worth a look.
    """

    def __init__(self, prefixes: Sequence[str], own_prefix: str) -> None:
        self._starts = tuple(prefix for prefix in prefixes if prefix != "*")
        self._takes_any = "*" in prefixes
        self._own_start = f"{own_prefix}_"

    def takes(self, text: str) -> bool:
        """Whether to look it up."""
        is_named = text.startswith(self._starts) or (self._takes_any and not text.startswith(self._own_start))
        return is_named and is_token_text(text)
