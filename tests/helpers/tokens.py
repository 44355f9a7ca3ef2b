"""The token's form, implemented a second time, so that no test relies on the code under test."""

import string
import zlib

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
NO_TOKEN = "ka_live_nonsense"


def base62(number: int, width: int) -> str:
    """Return `number` in base62, most significant digit first, left-padded with `0`."""
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits.rjust(width, "0")


def checksummed(body: str) -> str:
    """Return `body` followed by the six characters of its CRC-32."""
    return body + base62(zlib.crc32(body.encode("utf-8")), 6)


def forge(
    *,
    prefix: str = "ka",
    environment: str = "live",
    key_id: str = "0123456789Ab",
    secret: str = "A" * 43,
) -> str:
    """Return a token with a valid checksum that was never issued."""
    return checksummed(f"{prefix}_{environment}_{key_id}_{secret}")


def secret_of(token: str) -> str:
    """Return the 43 random characters of an API token."""
    return token.rsplit("_", 1)[1][:43]


def spoiled(token: str) -> str:
    """Return the token with its last character changed, so that its checksum is wrong."""
    return token[:-1] + ("0" if token[-1] != "0" else "1")
