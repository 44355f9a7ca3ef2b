"""Columns of an import, and the conversion of their values from CSV files and JSON."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fastapi_keyauth.domain import imported_tokens as foreign
from fastapi_keyauth.domain.validation import (
    Environment,
    HourlyLimit,
    Metadata,
    Name,
    Networks,
    Origins,
    OwnerId,
    Scopes,
    clean_expiry,
    reject_timestamps,
)


def _listed(value: Any) -> Any:
    """Return the list in a text: JSON, or words separated by spaces or commas."""
    if not isinstance(value, str):
        return value
    return _parsed(value) if value.lstrip().startswith("[") else value.replace(",", " ").split()


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None


def _whole(value: Any) -> Any:
    """Return the number in a text of digits, since CSV files hold numbers as text."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _in_utc(value: datetime) -> datetime:
    return clean_expiry(value if value.tzinfo else value.replace(tzinfo=UTC))


def _is_public(value: str) -> str:
    if not foreign.is_public_part(value):
        raise ValueError(
            f"must be the beginning of tokens, up to a separator: 1 to {foreign.MAX_PUBLIC_LENGTH} printable"
            f" characters with fewer than {foreign.MAX_PARTS} separators ({' '.join(foreign.SEPARATORS)})"
        )
    return value


_Moment = Annotated[datetime, BeforeValidator(reject_timestamps), AfterValidator(_in_utc)]
_Listed = BeforeValidator(_listed)


class ImportedKey(BaseModel):
    """Columns of one line. Unknown columns are rejected, so that a misspelled limit is not silently ignored."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    owner_id: OwnerId
    name: Name
    hash: str = Field(max_length=4096)
    public: Annotated[str, AfterValidator(_is_public)] | None = None
    hashed: foreign.Hashed = "token"
    environment: Environment | None = None
    scopes: Annotated[Scopes, _Listed] = Field(default_factory=lambda: ["*"])
    hourly_limit: Annotated[HourlyLimit, BeforeValidator(_whole)] | None = None
    allowed_origins: Annotated[Origins, _Listed] = Field(default_factory=list)
    allowed_ips: Annotated[Networks, _Listed] = Field(default_factory=list)
    expires_at: _Moment | None = None
    created_at: _Moment | None = None
    last_used_at: _Moment | None = None
    enabled: bool = True
    metadata: Annotated[Metadata, BeforeValidator(_parsed)] = Field(default_factory=dict)
    exempt_from_policy: bool = False
    last4: str = Field("", max_length=4, pattern=r"^[!-~]*$")
