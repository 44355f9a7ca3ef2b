"""Checks 5 and 6 of ``authenticator.py``, which a key's row decides, and the refusal of check 7."""

from datetime import datetime

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.ip_addresses import is_in, parse_networks
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.errors import (
    AddressNotAllowed,
    DisabledApiKey,
    ExpiredApiKey,
    KeyRefusal,
    OriginNotAllowed,
    OwnerSuspended,
    RateLimitExceeded,
    RevokedApiKey,
)
from fastapi_keyauth.limiter import Decision


def find_fault(key: KeySnapshot, now: datetime, context: AuthContext) -> KeyRefusal | None:
    """Return the finding of checks 5 and 6, or None."""
    inactive = find_inactive(key, now)
    if inactive is not None:
        return inactive
    if key.allowed_origins and context.origin is not None and context.origin not in key.allowed_origins:
        return OriginNotAllowed(key.id)
    if key.allowed_ips:
        ip = None if context.address is None else context.address.ip
        if ip is None or not is_in(ip, parse_networks(key.allowed_ips)):
            return AddressNotAllowed(key.id)
    return None


def find_inactive(key: KeySnapshot, now: datetime) -> KeyRefusal | None:
    """Return the finding of check 5, or None."""
    status = key.status(now)
    if status != "active":
        return {"disabled": DisabledApiKey, "revoked": RevokedApiKey, "expired": ExpiredApiKey}[status](key.id)
    return OwnerSuspended(key.id) if key.is_owner_suspended else None


def refuse_limited(key: KeySnapshot, decision: Decision) -> RateLimitExceeded:
    """Return the refusal by the limits that have no room."""
    limits = key.limits
    exhausted = decision.states[3 * len(limits.all) :]
    return RateLimitExceeded(
        decision.wait_s,
        key.hourly_limit or 0,
        key.id,
        violated_policies=[limits.names[position] for position in exhausted],
        reason=limits.describe_exhausted(exhausted, decision.states),
        evidence=(key, decision),
    )
