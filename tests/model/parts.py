"""What the model speaks of: settings, routes, requests, keys, sessions, answers; and the form of what is sent."""

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
    """The settings that decide what is answered."""

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
    """What a route wants. `session` "instead": the caller may be a session or a key, as for the management routes."""

    method: str
    path: str
    key: Literal["wanted", "optional", "ignored"] = "wanted"
    session: Literal["wanted", "instead", "ignored"] = "ignored"
    scope: str | None = None


@dataclass(frozen=True)
class Request:
    """What is sent: the values of `api-key` headers, and of `Authorization: Bearer` ones."""

    route: Route
    address: str | None
    api_keys: tuple[str, ...] = ()
    bearers: tuple[str, ...] = ()
    origin: str | None = None

    @property
    def api_tokens(self) -> list[str]:
        """What calls itself an API token. An empty header is no credential, and the same key in both places is one."""
        in_header = [*self.api_keys] if any(self.api_keys) else []
        as_bearer = [value for value in self.bearers if value.startswith("ka_")]
        return as_bearer if in_header == as_bearer else in_header + as_bearer

    @property
    def sessions(self) -> list[str]:
        """Any other Bearer value."""
        return [value for value in self.bearers if value and not value.startswith("ka_")]


@dataclass
class Secret:
    """A token and when it ends, if a rotation replaced it."""

    token: str = field(repr=False)
    ends_at: float = inf


@dataclass(eq=False)
class Key:
    """A key. `units` is what the limiter has counted, by hour; `admitted` and `refused` are the statistics."""

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
        """The most final finding."""
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
    """What a request is to be answered. `limits`: quota, remaining and seconds in the RateLimit headers, if any.

    `key` is the one whose secret was found right, `session` the one that the request was let in with.
    """

    code: str | None = None
    retry_after_s: int | None = None
    limits: tuple[int, int, int] | None = None
    key: Key | None = None
    session: Session | None = None


def covers(held: frozenset[str], scope: str) -> bool:
    """`*` is every scope but `keys:*` and `admin`, which are held by name alone."""
    return scope in held or ("*" in held and scope != "admin" and not scope.startswith("keys:"))


def is_well_formed(token: str) -> bool:
    """Section 1: the token's form, and its checksum."""
    match = re.fullmatch(r"ka_[a-z0-9]{1,16}_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", token)
    return match is not None and checksummed(token[:-6]) == token


def plain_ip(address: str) -> IPv4Address | IPv6Address:
    """`::ffff:a.b.c.d` is IPv4."""
    ip = ip_address(address)
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def bucket_of(address: str | None) -> str | None:
    """What an address is counted under: IPv4 singly, IPv6 by /64. Without an address nothing is blocked."""
    if address is None:
        return None
    ip = plain_ip(address)
    return str(ip if isinstance(ip, IPv4Address) else ip_network((ip, 64), strict=False))
