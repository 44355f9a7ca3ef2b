"""Bounds of a key, which also bound the keys that it creates: where and until when it may be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from fastapi_keyauth.domain.ip_addresses import IPNetwork, parse_networks
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
    """Return whether each network lies in one of the others.

    Lists may be long and this runs twice per change, so it compares starts of equal length and no pairs of networks.
    """
    starts: dict[tuple[int, int], set[int]] = {}
    for version, host_bits, address in map(_measure, parse_networks(tuple(outer))):
        starts.setdefault((version, host_bits), set()).add(address >> host_bits)
    return all(
        any(
            version == of_version and host_bits <= bits and address >> bits in found
            for (of_version, bits), found in starts.items()
        )
        for version, host_bits, address in map(_measure, parse_networks(tuple(inner)))
    )


def _measure(network: IPNetwork) -> tuple[int, int, int]:
    """Return its version, the number of bits beyond its prefix, and its address."""
    return network.version, network.max_prefixlen - network.prefixlen, int(network.network_address)
