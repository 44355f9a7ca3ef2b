"""Where and until when a key may be used: what it passes on to the keys that it creates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from fastapi_keyauth.domain.ip_addresses import IPNetwork, parse_network
from fastapi_keyauth.domain.keys import Key, KeySnapshot


@dataclass(frozen=True, slots=True)
class Bounds:
    """Conditions of a key that do not depend on the route.

    Attributes:
        environment: The second part of its token.
        expires_at: UTC. None: never.
        allowed_origins: Browser origins. Empty: any.
        allowed_ips: Addresses and CIDR networks. Empty: any.
    """

    environment: str
    expires_at: datetime | None
    allowed_origins: tuple[str, ...]
    allowed_ips: tuple[str, ...]

    @classmethod
    def of(cls, key: Key | KeySnapshot) -> Self:
        """Return the bounds of a key."""
        return cls(key.environment, key.expires_at, tuple(key.allowed_origins), tuple(key.allowed_ips))

    def find_excess(self, other: "Bounds") -> str | None:
        """Return the first field in which ``other`` allows more than these bounds. None if it allows no more."""
        if other.environment != self.environment:
            return "environment"
        if self.expires_at is not None and (other.expires_at is None or other.expires_at > self.expires_at):
            return "expires_at"
        if self.allowed_origins and not (other.allowed_origins and {*self.allowed_origins} >= {*other.allowed_origins}):
            return "allowed_origins"
        if self.allowed_ips and not (other.allowed_ips and _are_within(other.allowed_ips, self.allowed_ips)):
            return "allowed_ips"
        return None


def _are_within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Return whether each network lies in one of the others."""
    wide = [parse_network(text) for text in outer]
    return all(any(_is_within(parse_network(text), network) for network in wide) for text in inner)


def _is_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer
