"""Data types of the model: settings, routes, requests, keys, sessions and answers; and the form of tokens."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from math import inf
from typing import Literal

from tests.helpers.tokens import checksummed

STATUS: dict[str | None, int] = {
    None: 200,
    "missing_api_key": 401,
    "address_blocked": 429,
    "malformed_api_key": 401,
    "invalid_api_key": 401,
    "disabled_api_key": 401,
    "revoked_api_key": 401,
    "expired_api_key": 401,
    "origin_not_allowed": 401,
    "address_not_allowed": 401,
    "rate_limit_exceeded": 429,
    "session_required": 403,
    "missing_session": 401,
    "missing_credentials": 401,
    "invalid_session": 401,
    "insufficient_scope": 403,
    "not_found": 404,
    "key_not_active": 409,
    "too_many_keys": 409,
}


@dataclass(frozen=True)
class Rules:
    """The settings that affect answers."""

    default_hourly_limit: int | None
    rate_limit_algorithm: Literal["fixed_window", "sliding_window"]
    block_spares_valid_keys: bool
    block_after_failures: int = 4
    failure_window_s: int = 300
    block_for_s: int = 200
    allowed_origins: tuple[str, ...] = ()
    max_keys_per_owner: int = 5


@dataclass(frozen=True)
class Route:
    """Requirements of a route. `session` "instead": a session or a key is accepted, as on the management routes."""

    method: str
    path: str
    key: Literal["wanted", "optional", "ignored"] = "wanted"
    session: Literal["wanted", "instead", "ignored"] = "ignored"
    scope: str | None = None


@dataclass(frozen=True)
class Request:
    """A request: the values of `api-key` headers, and of `Authorization: Bearer` ones."""

    route: Route
    address: str | None
    api_keys: tuple[str, ...] = ()
    bearers: tuple[str, ...] = ()
    origin: str | None = None

    @property
    def api_tokens(self) -> list[str]:
        """Return the values sent as API tokens. An empty header does not count; one key in both places counts once."""
        in_header = [*self.api_keys] if any(self.api_keys) else []
        as_bearer = [value for value in self.bearers if value.startswith("ka_")]
        return as_bearer if in_header == as_bearer else in_header + as_bearer

    @property
    def sessions(self) -> list[str]:
        """Return all other Bearer values."""
        return [value for value in self.bearers if value and not value.startswith("ka_")]


@dataclass
class Secret:
    """A token, and its end if a rotation replaced it."""

    token: str = field(repr=False)
    ends_at: float = inf


@dataclass(eq=False)
class Key:
    """A key. `units` holds the limiter's counts by hour; `admitted` and `refused` are the statistics."""

    id: str
    owner_id: str
    secrets: list[Secret]
    scopes: frozenset[str] = frozenset({"*"})
    hourly_limit: int | None = None
    allowed_origins: tuple[str, ...] = ()
    allowed_ips: tuple[str, ...] = ()
    expires_at: float = inf
    enabled: bool = True
    revoked: bool = False
    units: Counter[int] = field(default_factory=Counter)
    admitted: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)

    def status(self, now: float) -> str:
        """Return the status; the most final one takes precedence."""
        if self.revoked:
            return "revoked"
        if not self.enabled:
            return "disabled"
        return "expired" if self.expires_at <= now else "active"


@dataclass(eq=False)
class Session:
    """A user's session."""

    token: str = field(repr=False)
    user_id: str
    scopes: frozenset[str]
    expires_at: float
    revoked: bool = False


@dataclass
class Attempts:
    """Failed attempts of one address since the first of them."""

    first_at: float
    count: int = 0
    blocked_until: float = -inf


@dataclass
class Answer:
    """The expected answer. `limits`: limit, remaining units and seconds in the RateLimit headers, if any.

    `key` is the one whose secret was valid, `session` the one that authenticated the request.
    """

    code: str | None = None
    retry_after_s: int | None = None
    limits: tuple[int, int, int] | None = None
    key: Key | None = None
    session: Session | None = None


def covers(held: frozenset[str], scope: str) -> bool:
    """Return whether the held scopes include one. `*` is every scope but `keys:*` and `admin`, which must be named."""
    return scope in held or ("*" in held and scope != "admin" and not scope.startswith("keys:"))


def is_well_formed(token: str) -> bool:
    """Return whether form and checksum of the token are valid (section 1)."""
    match = re.fullmatch(r"ka_[a-z0-9]{1,16}_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", token)
    return match is not None and checksummed(token[:-6]) == token


def plain_ip(address: str) -> IPv4Address | IPv6Address:
    """Parse an address; `::ffff:a.b.c.d` is IPv4."""
    ip = ip_address(address)
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def bucket_of(address: str | None) -> str | None:
    """Return the bucket of an address: IPv4 singly, IPv6 by /64. Requests without an address are never blocked."""
    if address is None:
        return None
    ip = plain_ip(address)
    return str(ip if isinstance(ip, IPv4Address) else ip_network((ip, 64), strict=False))
