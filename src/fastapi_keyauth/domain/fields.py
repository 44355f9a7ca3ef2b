"""Fields of keys and owners that callers set: the same for request bodies and for code."""

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, ValidationInfo, field_validator

from fastapi_keyauth.domain.lifetimes import KeyPolicy
from fastapi_keyauth.domain.limits import Limit, LimitList, check_with_hourly, drop_defaults
from fastapi_keyauth.domain.text import explain
from fastapi_keyauth.domain.validation import (
    Environment,
    ExpiresIn,
    Expiry,
    HourlyLimit,
    Metadata,
    Name,
    Networks,
    Origins,
    OwnerId,
    Reason,
    Scopes,
)
from fastapi_keyauth.errors import InvalidField

Model = TypeVar("Model", bound=BaseModel)


class NewKey(BaseModel):
    """A key to create. Unknown fields are rejected, such as a misspelled limit."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, json_schema_extra=drop_defaults)

    name: Name = Field(description="Where the key is used: `prod-api-server`, `local-dev-alice`.")
    owner_id: OwnerId | None = Field(None, description="For `admin`, and for members of several owners.")
    environment: Environment | None = Field(None, description="Second part of the token, such as `live` or `test`.")
    expires_at: Expiry | None = Field(None, description="When the key expires. Default: never.")
    expires_in_s: ExpiresIn | None = Field(None, description="Seconds until the key expires, in place of `expires_at`.")
    scopes: Scopes | None = Field(None, description="What the key may do. Default: what the caller may grant.")
    hourly_limit: HourlyLimit | None = Field(None, description="Requests per hour. Default: that of the service.")
    limits: LimitList | None = Field(
        None,
        description="All limits of the key; empty: it has no limit. Default: `hourly_limit`, or those of the service.",
    )
    allowed_origins: Origins = Field(
        default_factory=list, description="Browser origins; empty: no web page, except the service's own."
    )
    allowed_ips: Networks = Field(default_factory=list, description="Addresses or CIDR networks; empty: any.")
    metadata: Metadata = Field(default_factory=dict, description="Your own notes, at most 4 KiB of JSON.")
    exempt_from_policy: StrictBool = Field(
        default=False, description="For `admin`: `true` exempts the key from the service's policy for lifetimes."
    )

    @field_validator("expires_in_s")
    @classmethod
    def _one_expiry(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("expires_at") is not None:
            raise ValueError("give expires_at or expires_in_s, not both")
        return value

    @field_validator("limits")
    @classmethod
    def _one_hour(cls, value: list[Limit] | None, info: ValidationInfo) -> list[Limit] | None:
        check_with_hourly(info.data.get("hourly_limit"), value)
        return value

    @property
    def has_expiry(self) -> bool:
        """Whether an expiry was asked for."""
        return self.expires_at is not None or self.expires_in_s is not None

    def find_expiry(self, now: datetime, policy: KeyPolicy) -> datetime | None:
        """Return the time when the key expires. None: never.

        Raises:
            InvalidField: If the policy does not permit it.
        """
        field, expires_at = "expires_at", self.expires_at
        if self.expires_in_s is not None:
            field, expires_at = "expires_in_s", now + timedelta(seconds=self.expires_in_s)
        return policy.complete(expires_at, now, self.exempt_from_policy, field)


class _Left(enum.Enum):
    """Marker of patch fields that were not sent. In OpenAPI these fields are optional and have no default."""

    OUT = enum.auto()


def _optional(description: str) -> Any:
    """Return a field that keeps its value if it is not sent."""
    return Field(default=_Left.OUT, description=description)


def _describe_patch(schema: dict[str, Any]) -> None:
    drop_defaults(schema)
    schema["example"] = {"name": "prod-api-server", "allowed_ips": ["203.0.113.0/24"]}


def _describe_owner(schema: dict[str, Any]) -> None:
    drop_defaults(schema)
    schema["example"] = {"name": "Project X", "limits": [{"name": "day", "limit": 50_000, "per": "day"}]}


class KeyPatch(BaseModel):
    """Fields of a key to change. ``null`` removes an expiry, or restores the default limits."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, json_schema_extra=_describe_patch)

    name: Name = _optional("Where the key is used: `prod-api-server`, `local-dev-alice`.")
    enabled: StrictBool = _optional("`false` disables the key, `true` enables it again.")
    expires_at: Expiry | None = _optional("When the key expires; `null`: never.")
    scopes: Scopes = _optional("What the key may do.")
    hourly_limit: HourlyLimit | None = _optional("Requests per hour; `null`: the default.")
    limits: LimitList | None = _optional(
        "All limits of the key; empty: it has no limit; `null`: `hourly_limit`, or those of the service."
    )
    allowed_origins: Origins = _optional("Browser origins; empty: no web page, except the service's own.")
    allowed_ips: Networks = _optional("Addresses or CIDR networks; empty: any.")
    metadata: Metadata = _optional("Your own notes, at most 4 KiB of JSON.")
    exempt_from_policy: StrictBool = _optional(
        "For `admin`: whether the key is exempt from the service's policy for lifetimes."
    )
    reason: Reason | None = _optional("Reason of the change, for the history of the key.")

    @field_validator("limits")
    @classmethod
    def _one_hour(cls, value: list[Limit] | None, info: ValidationInfo) -> list[Limit] | None:
        number = info.data.get("hourly_limit")
        check_with_hourly(number if isinstance(number, int) else None, value)
        return value

    def sent_fields(self) -> dict[str, Any]:
        """Return the fields that were sent, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class OwnerFields(BaseModel):
    """Fields to set for an owner. ``null`` restores the default limits, or removes the name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, json_schema_extra=_describe_owner)

    limits: LimitList | None = _optional(
        "Limits of all its keys together; empty: it has no limit; `null`: those of the service."
    )
    name: Name | None = _optional("A name for people.")
    reason: Reason | None = _optional("Reason of the change, for the log.")

    def sent_fields(self) -> dict[str, Any]:
        """Return the fields that were sent, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def validate_fields(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Validate fields that were passed by code, with the rules for request bodies.

    Raises:
        InvalidField: Naming the first invalid field.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidField(str(first["loc"][0]), explain(first)) from None
