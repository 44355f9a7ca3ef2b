"""Values of single settings: their forms in the environment, and their validation."""

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from fastapi_keyauth.domain.ip_addresses import parse_network
from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.domain.origins import parse_origin
from fastapi_keyauth.domain.text import is_scope_name
from fastapi_keyauth.domain.tokens import SESSION_PREFIX
from fastapi_keyauth.domain.units import NAME_PATTERN, REQUESTS
from fastapi_keyauth.settings.check_warnings import SENTENCES
from fastapi_keyauth.settings.database_urls import check_database_url
from fastapi_keyauth.settings.redis_urls import parse_redis_url
from fastapi_keyauth.settings.urls import MaskedUrl

MIN_TICKET_KEY = 32
"""Minimum number of characters of a ``ticket_key``."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


def _split_list(value: Any) -> Any:
    """Return the list in a text: JSON, or values separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _read_limits(value: Any) -> Any:
    return json.loads(value or "[]") if isinstance(value, str) else value


def _read_scopes(value: Any) -> Any:
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith(("{", "[")) else _split_list(value)
    return dict.fromkeys(value, "") if isinstance(value, list | tuple | set | frozenset) else value


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _none_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none", "null") else value


def _check_redis_url(value: str) -> str:
    parse_redis_url(value)
    return MaskedUrl(value)


def _check_header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("must be the name of a header")
    if value.lower() in ("authorization", "cookie", "origin", "host", "x-forwarded-for"):
        raise ValueError("must not be a header with another meaning")
    return value.lower()


def _check_realm(value: str) -> str:
    if not value.isascii() or not value.isprintable() or set(value) & set('"\\'):
        raise ValueError("must be printable ASCII without quotes or backslashes")
    return value


def _check_key_prefix(value: str) -> str:
    if value == SESSION_PREFIX:
        raise ValueError(f"must not be {SESSION_PREFIX!r}, which session tokens start with")
    return value


def _check_imported_prefixes(value: tuple[str, ...]) -> tuple[str, ...]:
    for prefix in value:
        if prefix != "*" and not re.fullmatch(r"[!-+\--~]{1,64}", prefix):
            raise ValueError("must be '*' or starts of tokens: 1 to 64 printable characters")
        if f"{SESSION_PREFIX}_".startswith(prefix) or prefix.startswith(f"{SESSION_PREFIX}_"):
            raise ValueError(f"must not include {SESSION_PREFIX}_, which session tokens start with")
    return value


def _check_units(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(NAME_PATTERN, name) for name in value):
        raise ValueError("must have names of 1 to 32 of a-z0-9_-")
    return tuple(name for name in dict.fromkeys(value) if name != REQUESTS)


def _split_ticket_keys(value: Any) -> Any:
    value = value.get_secret_value() if isinstance(value, SecretStr) else value
    return _split_list(value) if value is not None else ()


def _check_ticket_keys(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(ticket_key.get_secret_value()) < MIN_TICKET_KEY for ticket_key in value):
        raise ValueError(f"must have at least {MIN_TICKET_KEY} characters, such as secrets.token_urlsafe(32)")
    return value


def _check_codes(value: tuple[str, ...]) -> tuple[str, ...]:
    if not SENTENCES.keys() >= set(value):
        raise ValueError(f"must have codes of warnings: {', '.join(SENTENCES)}")
    return value


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(parse_network(text)) for text in value)


def _check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text if text == "*" else parse_origin(text) for text in value)


def _check_scopes(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if name == "*" or not is_scope_name(name):
            raise ValueError("must have names of 1 to 64 printable characters without spaces, quotes or '*'")
    return value


_Strings = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
DatabaseUrl = Annotated[str, AfterValidator(check_database_url)]
RedisUrl = Annotated[Annotated[str, AfterValidator(_check_redis_url)] | None, BeforeValidator(_empty_is_none)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]
KeyPrefix = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,16}$"), AfterValidator(_check_key_prefix)]
ImportedPrefixes = Annotated[_Strings, AfterValidator(_check_imported_prefixes)]
Realm = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_realm)]
HourlyLimit = Annotated[int | None, Field(ge=1, le=1_000_000_000), BeforeValidator(_none_is_none)]
KeyTtl = Annotated[int | None, Field(ge=1, le=3_162_240_000), BeforeValidator(_none_is_none)]
UnusedDays = Annotated[int | None, Field(ge=1, le=36_600), BeforeValidator(_none_is_none)]
EndWithin = Annotated[float | None, Field(ge=0.1, le=3600), BeforeValidator(_none_is_none)]
Limits = Annotated[tuple[Limit, ...], NoDecode, BeforeValidator(_read_limits)]
TicketKeys = Annotated[
    tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_ticket_keys), AfterValidator(_check_ticket_keys)
]
SilencedChecks = Annotated[_Strings, AfterValidator(_check_codes)]
Units = Annotated[_Strings, AfterValidator(_check_units)]
Proxies = Annotated[_Strings, AfterValidator(_check_networks)]
AllowedOrigins = Annotated[_Strings, AfterValidator(_check_origins)]
Scopes = Annotated[dict[str, str], NoDecode, BeforeValidator(_read_scopes), AfterValidator(_check_scopes)]
