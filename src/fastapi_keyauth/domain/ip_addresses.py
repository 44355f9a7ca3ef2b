"""The client address of a connection: the peer, or the address that trusted proxies report."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from fastapi_keyauth.concurrency.bounded_dict import BoundedDict

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_HOST_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,252}")
_FORWARDED_FOR = b"x-forwarded-for"
MAX_NETWORK_LENGTH = 64
_MAX_FORWARDED = 64  # entries that are read, from the right; more proxies than that are an attack
_MAX_HOST_LENGTH = 255  # of a name; a server that takes the peer from a header may give thousands, to be cached
MAX_PEERS = 4096
"""Maximum number of peers whose address is cached."""
_CARRIERS_OF_IPV4 = tuple(
    IPv6Network(prefix)
    for prefix in (
        "::ffff:0:0/96",  # IPv4-mapped: IPv4 on a socket for both (RFC 4291 section 2.5.5.2)
        "64:ff9b::/96",  # NAT64 (RFC 6052 section 2.1)
        "::ffff:0:0:0/96",  # IPv4-translated: SIIT (RFC 2765 section 2.1, RFC 7915)
    )
)


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """Where a request comes from.

    Attributes:
        text: The address as people read it.
        bucket: The name under which failures and blocks are counted: the address, or an IPv6 network.
        ip: The parsed address. None if a test client gave only a name.
    """

    text: str
    bucket: str
    ip: IPAddress | None


def parse_network(text: str) -> IPNetwork:
    """Parse a CIDR network or a single address. IPv6 that stands for IPv4, such as ``::ffff:a.b.c.d``, becomes IPv4.

    Raises:
        ValueError: If the text is not a network, or has bits set beyond its prefix.
    """
    # A zone (fe80::1%eth0) only means something on this machine, and may be any text.
    has_zone_or_more = "%" in text or len(text) > MAX_NETWORK_LENGTH
    try:
        network = ip_network("" if has_zone_or_more else text.strip())
    except ValueError:
        raise ValueError("a network is an address or CIDR such as 10.0.0.0/8, with no bits set beyond it") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        ipv4 = _find_ipv4(network.network_address)
        if ipv4 is not None:
            return IPv4Network((ipv4, network.prefixlen - 96))
    return network


def parse_ip(text: str) -> IPAddress | None:
    """Parse an address; IPv6 that stands for IPv4 becomes IPv4. Return None if the text is not an address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            address = IPv6Address(address.packed)
        return _find_ipv4(address) or address
    return address


def _find_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, if it stands for one."""
    if any(address in network for network in _CARRIERS_OF_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def parse_forwarded(entry: str) -> IPAddress | None:
    """Parse an ``X-Forwarded-For`` entry: ``ip``, ``ip:port``, ``[v6]`` or ``[v6]:port``. Return None for others."""
    entry = entry.strip(" \t")
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        if not bracket or (port and not _is_port(port[1:] if port[0] == ":" else "")):
            return None
        address = parse_ip(host)
        return address if ":" in host else None
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return parse_ip(host) if _is_port(port) else None
    return parse_ip(entry)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def is_in(ip: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    """Return whether an address lies in any of the networks."""
    return any(ip.version == network.version and ip in network for network in networks)


@lru_cache(maxsize=1024)
def parse_networks(texts: tuple[str, ...]) -> tuple[IPNetwork, ...]:
    """Parse networks. Cached, because an allow list is checked on every request of its key."""
    return tuple(parse_network(text) for text in texts)


class AddressResolver:
    """Finds the ``ClientAddress`` of an ASGI scope.

    Args:
        trusted_proxies: Networks whose ``X-Forwarded-For`` is trusted.
        ipv6_prefix_length: Bits of an IPv6 address that count as one client.
    """

    def __init__(self, trusted_proxies: Sequence[str], ipv6_prefix_length: int) -> None:
        self._trusted = tuple(parse_network(text) for text in trusted_proxies)
        self._ipv6_prefix_length = ipv6_prefix_length
        self._peers: BoundedDict[str, ClientAddress] = BoundedDict(MAX_PEERS)

    def resolve(self, client: tuple[str, int] | None, headers: Sequence[tuple[bytes, bytes]]) -> ClientAddress | None:
        """Return the client's address, or None if the server gave no peer (a Unix socket).

        The rightmost forwarded entry that is not a trusted proxy counts: the client itself may have written everything
        left of it.
        """
        if client is None:
            return None
        host = client[0]
        peer = self._peers.get(host) or self._add_peer(host)
        if not self._trusted or peer is None or peer.ip is None or not is_in(peer.ip, self._trusted):
            return peer
        lines = [value.decode("latin-1") for name, value in headers if name == _FORWARDED_FOR]
        entries = ",".join(lines).rsplit(",", _MAX_FORWARDED)
        furthest: IPAddress | None = None
        for entry in reversed(entries if lines else []):
            ip = parse_forwarded(entry)
            if ip is None:
                return peer
            furthest = ip
            if not is_in(ip, self._trusted):
                break
        return peer if furthest is None else self.describe(furthest)

    def _add_peer(self, host: str) -> ClientAddress | None:
        """Return the address of a peer, and cache it. None if it is not an address or a name."""
        peer = self._describe_host(host) if 0 < len(host) <= _MAX_HOST_LENGTH else None
        if peer is not None:
            self._peers[host] = peer
        return peer

    def _describe_host(self, host: str) -> ClientAddress | None:
        ip = parse_ip(host)
        if ip is not None:
            return self.describe(ip)
        # Test clients give a name instead of an address; a socket's path is neither. The dot keeps it apart from the
        # ids of keys, which share a namespace in Redis: a server that trusts a header can be made to give any name.
        return ClientAddress(host, f"{host.lower()}.", None) if _HOST_NAME.fullmatch(host) else None

    def describe(self, ip: IPAddress) -> ClientAddress:
        """Return an address as a client's, with the bucket in which it counts."""
        text = str(ip)
        if isinstance(ip, IPv4Address):
            return ClientAddress(text, text, ip)
        return ClientAddress(text, str(IPv6Network((ip, self._ipv6_prefix_length), strict=False)), ip)
