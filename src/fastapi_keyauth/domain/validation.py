"""Validation rules for the fields of keys, as types. The models that use them are in ``fields.py``."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field
from pydantic_core import PydanticKnownError

from fastapi_keyauth.domain.ip_addresses import parse_network
from fastapi_keyauth.domain.origins import parse_origin
from fastapi_keyauth.domain.principals import ADMIN, ALL, KEYS_READ, KEYS_WRITE
from fastapi_keyauth.domain.text import (
    MAX_USER_ID_LENGTH,
    check_owner_id,
    check_scope_names,
    has_visible_text,
    is_printable_text,
)
from fastapi_keyauth.domain.tokens import has_token
from fastapi_keyauth.errors import InvalidField

MAX_METADATA_BYTES = 4096
MAX_METADATA_DEPTH = 16
MAX_LIST = 100
MAX_REASON = 500
MAX_HOURLY_LIMIT = 1_000_000_000
MAX_EXPIRES_IN_S = 100 * 366 * 86_400
FIRST_EXPIRY = datetime(1970, 1, 1, tzinfo=UTC)
LAST_EXPIRY = datetime(9000, 1, 1, tzinfo=UTC)


def _validate_name(value: str) -> str:
    value = value.strip()
    if not has_visible_text(value):
        raise ValueError("must have at least one visible character")
    if not is_printable_text(value):
        raise ValueError("must not have control characters, or characters that change the direction of text")
    _reject_token(value)
    return value


def _reject_token(value: str) -> None:
    """Reject text with a token, which is then pasted by mistake: it would be stored and shown as it is."""
    if has_token(value):
        raise ValueError("must not contain a token")


def _validate_reason(value: str) -> str:
    value = value.strip()
    if not has_visible_text(value) or not is_printable_text(value):
        raise ValueError("must have visible characters and no control characters")
    _reject_token(value)
    return value


def check_reason(reason: str | None) -> str | None:
    """Return a reason for the history.

    Raises:
        InvalidField: If it is empty, longer than 500 characters, or has control characters.
    """
    if reason is None:
        return None
    if len(reason) > MAX_REASON:
        raise InvalidField("reason", f"must have at most {MAX_REASON} characters")
    try:
        return _validate_reason(reason)
    except ValueError as error:
        raise InvalidField("reason", str(error)) from None


def _validate_origins(values: list[str]) -> list[str]:
    return list(dict.fromkeys(parse_origin(value) for value in values))


def _validate_networks(values: list[str]) -> list[str]:
    cleaned = []
    for value in values:
        network = parse_network(value)
        is_single = network.num_addresses == 1 and "/" not in value
        cleaned.append(str(network.network_address if is_single else network))
    return list(dict.fromkeys(cleaned))


def _validate_scopes(values: list[str]) -> list[str]:
    try:
        return check_scope_names(values)
    except InvalidField as error:
        raise ValueError(error.message) from None


def _validate_owner(value: str) -> str:
    try:
        return check_owner_id(value, "owner_id")
    except InvalidField as error:
        raise ValueError(error.message) from None


def _validate_metadata(value: dict[str, Any]) -> dict[str, Any]:
    if _depth(value) > MAX_METADATA_DEPTH:
        raise ValueError(f"must be nested at most {MAX_METADATA_DEPTH} levels deep")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must contain only JSON values") from None
    if len(text) > MAX_METADATA_BYTES:
        raise ValueError(f"must have at most {MAX_METADATA_BYTES} bytes as JSON")
    _reject_token(text.decode())
    copy: dict[str, Any] = json.loads(text)  # the caller's object may change later
    return copy


def _depth(value: Any) -> int:
    """Return the depth of nested lists and dictionaries, without recursion. Stops counting above the maximum."""
    level, depth = [value], 0
    while level and depth <= MAX_METADATA_DEPTH:
        depth += 1
        parts = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [inner for part in parts for inner in part]
    return depth


def clean_expiry(value: datetime) -> datetime:
    """Return a time in UTC, within the range that every supported database can store."""
    try:
        value = value.astimezone(UTC)
    except OverflowError:
        value = LAST_EXPIRY
    if not FIRST_EXPIRY <= value < LAST_EXPIRY:
        raise ValueError("must be between the years 1970 and 9000")
    return value


def _as_number(value: Any) -> Any:
    """Reject booleans and text: False, read as 0, would end a secret immediately."""
    if isinstance(value, bool | str | bytes):
        raise ValueError("must be a whole number")  # noqa: TRY004  # Pydantic reports a ValueError, not a TypeError
    return value


def reject_timestamps(value: Any) -> Any:
    """Reject numbers: Pydantic would read them as seconds or milliseconds since 1970, depending on their size."""
    if isinstance(value, int | float | bytes) or (isinstance(value, str) and "-" not in value[1:]):
        raise ValueError("must be a date and time with a zone (RFC 3339)")
    return value


def _as_list(value: Any) -> Any:
    """Return a collection as a list, since code may pass tuples and sets. Reject long lists before their items are
    validated: thousands of items could cause thousands of errors.
    """
    values = list(value) if isinstance(value, tuple | set | frozenset) else value
    if isinstance(values, list) and len(values) > MAX_LIST:
        facts = {"field_type": "List", "max_length": MAX_LIST, "actual_length": len(values)}
        raise PydanticKnownError("too_long", facts)
    return values


# The rules above as JSON Schema, as far as it can express them, and never stricter than they are.
_UNSEEN = r"\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_NAME = {"minLength": 1, "pattern": rf"[^\s{_UNSEEN}]"}
_OWNER = {"minLength": 1, "maxLength": MAX_USER_ID_LENGTH, "pattern": rf"^[^{_UNSEEN}]*$"}
_SCOPE = {"pattern": r"^(\*|[\x21\x23-\x29\x2b-\x5b\x5d-\x7e]{1,64})$"}
_ORIGIN = {"pattern": r"^[A-Za-z][A-Za-z0-9+.-]*://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$"}
_NETWORK = {"pattern": r"^\s*[0-9A-Fa-f:.]{2,45}(/[0-9.]{1,15})?\s*$"}

Name = Annotated[str, Field(max_length=100, json_schema_extra=_NAME), AfterValidator(_validate_name)]
Environment = Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")]
_Items = (BeforeValidator(_as_list), Field(max_length=MAX_LIST))
Scopes = Annotated[list[Annotated[str, Field(json_schema_extra=_SCOPE)]], *_Items, AfterValidator(_validate_scopes)]
Origins = Annotated[list[Annotated[str, Field(json_schema_extra=_ORIGIN)]], *_Items, AfterValidator(_validate_origins)]
Networks = Annotated[
    list[Annotated[str, Field(json_schema_extra=_NETWORK)]], *_Items, AfterValidator(_validate_networks)
]
Metadata = Annotated[dict[str, Any], AfterValidator(_validate_metadata)]
StrictInt = Annotated[int, BeforeValidator(_as_number)]
HourlyLimit = Annotated[int, Field(ge=1, le=MAX_HOURLY_LIMIT), BeforeValidator(_as_number)]
ExpiresIn = Annotated[int, Field(ge=1, le=MAX_EXPIRES_IN_S), BeforeValidator(_as_number)]
Expiry = Annotated[AwareDatetime, BeforeValidator(reject_timestamps), AfterValidator(clean_expiry)]
Reason = Annotated[str, Field(max_length=MAX_REASON, json_schema_extra=_NAME), AfterValidator(_validate_reason)]
OwnerId = Annotated[str, Field(json_schema_extra=_OWNER), AfterValidator(_validate_owner)]


def known_scopes(catalog: dict[str, str]) -> set[str]:
    """Return the scopes that can be granted if the application has a catalog of scopes."""
    return {*catalog, ALL, ADMIN, KEYS_READ, KEYS_WRITE}


def check_catalog(scopes: Sequence[str], catalog: dict[str, str]) -> None:
    """Check scopes against the catalog of the application, if it has one. Built-in scopes always pass.

    Raises:
        InvalidField: If there is a catalog and a scope is neither in it nor built in.
    """
    known = known_scopes(catalog)
    if catalog and not known.issuperset(scopes):
        raise InvalidField("scopes", f"must be among: {', '.join(sorted(known))}")


def check_future(expires_at: datetime | None, now: datetime) -> None:
    """Check that an expiry is in the future.

    Raises:
        InvalidField: If it is not.
    """
    if expires_at is not None and expires_at <= now:
        raise InvalidField("expires_at", "must be in the future")
