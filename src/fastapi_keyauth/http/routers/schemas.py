"""Bodies of the management routes."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from fastapi_keyauth.domain.audit import FindingKind
from fastapi_keyauth.domain.keys import CreatedKey, Key
from fastapi_keyauth.domain.limits import drop_defaults
from fastapi_keyauth.domain.principals import KeyPrincipal
from fastapi_keyauth.domain.validation import Reason, StrictInt
from fastapi_keyauth.domain.windows import Algorithm


def _rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""Times in RFC 3339, in UTC with a Z."""


def _fields(key: Key) -> dict[str, Any]:
    return asdict(key) | {"limits": [limit.model_dump() for limit in key.limits]}


class SecretOut(BaseModel):
    """A live secret of a key."""

    hint: str
    created_at: Moment
    expires_at: Moment | None
    last_used_at: Moment | None


class LimitOut(BaseModel):
    """A limit in force."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    limit: int = Field(description="Units per window.")
    per: str | int = Field(description="A calendar window in UTC, or seconds counted from 1970.")
    unit: str
    algorithm: Algorithm


class LimitStateOut(BaseModel):
    """A limit in force, and what is left of it."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(
        description="Beside the limits of a key, a limit of its owner starts with `owner-`, as in the headers."
    )
    limit: int = Field(description="Units per window.")
    per: str | int = Field(description="A calendar window in UTC, or seconds counted from 1970.")
    unit: str
    algorithm: Algorithm
    remaining: int = Field(description="Units left, never below 0.")
    reset_at: Moment = Field(description="When the window ends.")


_RARE = ("disabled_by_admin", "exempt_from_policy")


class KeyOut(BaseModel):
    """A key, without its token."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    owner_id: str
    environment: str
    hint: str = Field(description="The public part of the token and its last four characters.")
    scopes: list[str]
    hourly_limit: int | None = Field(description="Requests per hour; null: no such limit.")
    allowed_origins: list[str]
    allowed_ips: list[str]
    metadata: dict[str, Any]
    status: Literal["active", "disabled", "expired", "revoked"]
    enabled: bool
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None
    secrets: list[SecretOut] = Field(description="The live secrets, newest first; two while a rotation overlaps.")
    limits: list[LimitOut] = Field(description="All limits in force; empty: it has no limit.")
    created_by: str | None = Field(description="The actor that created it, such as `user:<id>` or `key:<id>`.")
    disabled_by_admin: bool = Field(
        default=False, description="Only present if `admin` disabled it: then only `admin` can enable it."
    )
    exempt_from_policy: bool = Field(
        default=False, description="Only present if `admin` exempted it from the service's policy for lifetimes."
    )

    @model_serializer(mode="wrap")
    def _omit_rare(self, serialize: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]  # or it is the schema
        """Leave out what is false for nearly every key."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if value is not False or name not in _RARE}


class CreatedKeyOut(KeyOut):
    """A key that was just created or rotated, with its token, which is shown only once."""

    token: str

    @classmethod
    def of(cls, created: CreatedKey) -> "CreatedKeyOut":
        """Return the fields of the key beside its token."""
        return cls(token=created.token, **_fields(created.key))


class CurrentKeyOut(KeyOut):
    """The calling key."""

    remaining: int | None = Field(
        description="Requests left of the limit with the smallest share left; null: no limit counts requests."
    )
    reset_at: Moment | None
    limit_states: list[LimitStateOut] = Field(description="Every limit of the key and of its owner.")

    @classmethod
    def of(cls, key: Key, principal: KeyPrincipal) -> "CurrentKeyOut":
        """Return the fields of the key beside what is left of its limits."""
        states = [LimitStateOut.model_validate(state) for state in principal.limits]
        return cls(remaining=principal.remaining, reset_at=principal.reset_at, limit_states=states, **_fields(key))


class KeyPageOut(BaseModel):
    """A page of keys."""

    model_config = ConfigDict(from_attributes=True)

    items: list[KeyOut]
    next_cursor: str | None


class AuditFindingOut(BaseModel):
    """One finding of an audit."""

    model_config = ConfigDict(from_attributes=True)

    finding: FindingKind
    key_id: str
    owner_id: str
    detail: str = Field(description="One sentence that says what was found.")


class AuditPageOut(BaseModel):
    """The findings about a page of keys."""

    model_config = ConfigDict(from_attributes=True)

    items: list[AuditFindingOut]
    next_cursor: str | None = Field(description="Cursor of the keys that follow; null: there are no more keys.")


class UsageHourOut(BaseModel):
    """Usage in one clock hour."""

    model_config = ConfigDict(from_attributes=True)

    hour: Moment
    admitted: int = Field(description="Units of `requests` that were used.")
    refused: int = Field(description="Requests with a correct secret that used no unit.")
    units: dict[str, int] = Field(description="Unit to the number of units that were used, of requests too.")


class UsageOut(BaseModel):
    """Usage by the hour, oldest first."""

    items: list[UsageHourOut]


class EventOut(BaseModel):
    """An entry of a key's history."""

    model_config = ConfigDict(from_attributes=True)

    event: str
    actor: str
    address: str | None
    at: Moment
    changes: dict[str, Any]
    reason: str | None


class EventPageOut(BaseModel):
    """A page of history."""

    model_config = ConfigDict(from_attributes=True)

    items: list[EventOut]
    next_cursor: str | None


class RotateIn(BaseModel):
    """Options of a rotation."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, json_schema_extra=drop_defaults)

    overlap_s: StrictInt = Field(
        86_400, ge=0, le=604_800, description="Seconds for which the old secret keeps working. Default: 86400."
    )
    reason: Reason | None = Field(None, description="Reason of the rotation, for the history of the key.")
