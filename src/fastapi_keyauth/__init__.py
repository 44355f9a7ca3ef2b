"""API-key authentication for FastAPI: keys, sessions, rate limits and blocking, on one dependency."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastapi_keyauth.domain.audit import AuditFinding, AuditPage
from fastapi_keyauth.domain.events import AuthEvent, EventKind
from fastapi_keyauth.domain.keys import CreatedKey, EventPage, Key, KeyEvent, KeyPage, Secret, UsageHour
from fastapi_keyauth.domain.limit_sets import LimitState
from fastapi_keyauth.domain.owners import Erasure, KeyCounts, Owner
from fastapi_keyauth.domain.principals import KeyPrincipal, SessionPrincipal
from fastapi_keyauth.domain.redaction import redact, redact_event
from fastapi_keyauth.domain.tokens import TOKEN_PATTERN, token_pattern
from fastapi_keyauth.domain.usage import UsageBatch, UsageBatchItem, UsageItem, UsageReport
from fastapi_keyauth.errors import (
    AddressBlocked,
    AddressNotAllowed,
    BadLine,
    ChangePending,
    DisabledApiKey,
    ExpiredApiKey,
    HasherUnavailable,
    ImportRefused,
    InsufficientScope,
    InvalidApiKey,
    InvalidField,
    InvalidSession,
    KeyAuthError,
    KeyNotActive,
    KeyNotFound,
    LimiterUnavailable,
    MalformedApiKey,
    MissingApiKey,
    MissingCredentials,
    MissingSession,
    OriginNotAllowed,
    OwnerSuspended,
    Problem,
    RateLimitExceeded,
    Refusal,
    RevokedApiKey,
    SessionRequired,
    SetupError,
    StoreUnavailable,
    TemporarilyUnavailable,
    TooManyKeys,
)

if TYPE_CHECKING:
    from fastapi_keyauth.auth.blocked_addresses import Block
    from fastapi_keyauth.auth.reservations import Hold, Reservation
    from fastapi_keyauth.domain.limits import Limit
    from fastapi_keyauth.http.dashboard.options import DashboardOptions
    from fastapi_keyauth.keyauth import KeyAuth
    from fastapi_keyauth.keys.importer import ImportOutcome
    from fastapi_keyauth.settings.settings import KeyAuthSettings
    from fastapi_keyauth.telemetry.providers import Telemetry
else:
    # Imported when first read: the command line and its completion start without FastAPI and SQLAlchemy.
    _LAZY = {
        "Block": "auth.blocked_addresses",
        "DashboardOptions": "http.dashboard.options",
        "Hold": "auth.reservations",
        "ImportOutcome": "keys.importer",
        "KeyAuth": "keyauth",
        "KeyAuthSettings": "settings.settings",
        "Limit": "domain.limits",
        "Reservation": "auth.reservations",
        "Telemetry": "telemetry.providers",
    }

    def __getattr__(name: str) -> Any:
        """Import a public name that is not imported yet (PEP 562)."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """List the names that are not imported yet, too."""
        return sorted({*globals(), *_LAZY})


__all__ = [
    "TOKEN_PATTERN",
    "AddressBlocked",
    "AddressNotAllowed",
    "AuditFinding",
    "AuditPage",
    "AuthEvent",
    "BadLine",
    "Block",
    "ChangePending",
    "CreatedKey",
    "DashboardOptions",
    "DisabledApiKey",
    "Erasure",
    "EventKind",
    "EventPage",
    "ExpiredApiKey",
    "HasherUnavailable",
    "Hold",
    "ImportOutcome",
    "ImportRefused",
    "InsufficientScope",
    "InvalidApiKey",
    "InvalidField",
    "InvalidSession",
    "Key",
    "KeyAuth",
    "KeyAuthError",
    "KeyAuthSettings",
    "KeyCounts",
    "KeyEvent",
    "KeyNotActive",
    "KeyNotFound",
    "KeyPage",
    "KeyPrincipal",
    "Limit",
    "LimitState",
    "LimiterUnavailable",
    "MalformedApiKey",
    "MissingApiKey",
    "MissingCredentials",
    "MissingSession",
    "OriginNotAllowed",
    "Owner",
    "OwnerSuspended",
    "Problem",
    "RateLimitExceeded",
    "Refusal",
    "Reservation",
    "RevokedApiKey",
    "Secret",
    "SessionPrincipal",
    "SessionRequired",
    "SetupError",
    "StoreUnavailable",
    "Telemetry",
    "TemporarilyUnavailable",
    "TooManyKeys",
    "UsageBatch",
    "UsageBatchItem",
    "UsageHour",
    "UsageItem",
    "UsageReport",
    "redact",
    "redact_event",
    "token_pattern",
]
