"""From a connection to one client address: the peer, or what trusted proxies say of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_HOST_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]{0,252}")
_FORWARDED_FOR = b"x-forwarded-for"
MAX_NETWORK_LENGTH = 64
_MAX_FORWARDED = 64  # entries looked at, from the right; more proxies than that is an attack
_MAX_HOST_LENGTH = 255  # of a name; a server that takes the peer from a header may give thousands, to be remembered


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """Where a request comes from.

    Attributes:
        text: the address as people read it.
        bucket: what failures and blocks are counted under: the address, or an IPv6 network.
        ip: the parsed address; None where a test client gave only a name.
    """

    text: str
    bucket: str
    ip: IPAddress | None


def parse_network(text: str) -> IPNetwork:
    """A CIDR network or a single address; IPv4 written as ``::ffff:a.b.c.d`` becomes IPv4.

    Raises:
        ValueError: no network, or one with bits set beyond its prefix.
    """
    # A zone (fe80::1%eth0) is this machine's business, and may be anything.
    has_zone_or_more = "%" in text or len(text) > MAX_NETWORK_LENGTH
    try:
        network = ip_network("" if has_zone_or_more else text.strip())
    except ValueError:
        raise ValueError("a network is an address or CIDR such as 10.0.0.0/8, with no bits set beyond it") from None
    if isinstance(network, IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def parse_ip(text: str) -> IPAddress | None:
    """An address, IPv4 in IPv6 taken out of it; None where ``text`` is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            address = IPv6Address(address.packed)
        return address.ipv4_mapped or address
    return address


def parse_forwarded(entry: str) -> IPAddress | None:
    """An ``X-Forwarded-For`` entry: ``ip``, ``ip:port``, ``[v6]`` or ``[v6]:port``."""
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
    """Whether an address lies in any of the networks."""
    return any(ip.version == network.version and ip in network for network in networks)


@lru_cache(maxsize=1024)
def parse_networks(texts: tuple[str, ...]) -> tuple[IPNetwork, ...]:
    """Parsed networks, remembered, as an allow list is looked at on every request of its key."""
    return tuple(parse_network(text) for text in texts)


class AddressResolver:
    """FairSemaphore an ASGI scope into a ``ClientAddress``.

    Args:
        trusted_proxies: networks whose ``X-Forwarded-For`` is believed.
        ipv6_prefix_length: bits of an IPv6 address that count as one client.
    """

    def __init__(self, trusted_proxies: Sequence[str], ipv6_prefix_length: int) -> None:
        self._trusted = tuple(parse_network(text) for text in trusted_proxies)
        self._ipv6_prefix_length = ipv6_prefix_length
        self._of_host = lru_cache(maxsize=4096)(self._describe_host)

    def resolve(self, client: tuple[str, int] | None, headers: Sequence[tuple[bytes, bytes]]) -> ClientAddress | None:
        """The client's address, or None where the server gave no peer (a Unix socket).

        The rightmost forwarded entry that is no trusted proxy counts: everything left of it is the client's word.
        """
        if client is None or not 0 < len(client[0]) <= _MAX_HOST_LENGTH:
            return None
        peer = self._of_host(client[0])
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

    def _describe_host(self, host: str) -> ClientAddress | None:
        ip = parse_ip(host)
        if ip is not None:
            return self.describe(ip)
        # Test clients give a name where servers give an address; a socket's path is neither. The dot keeps it apart
        # from the ids of keys, which Redis has beside it: a server that believes a header can be made to name anything.
        return ClientAddress(host, f"{host.lower()}.", None) if _HOST_NAME.fullmatch(host) else None

    def describe(self, ip: IPAddress) -> ClientAddress:
        """What an address is counted under."""
        text = str(ip)
        if isinstance(ip, IPv4Address):
            return ClientAddress(text, text, ip)
        return ClientAddress(text, str(IPv6Network((ip, self._ipv6_prefix_length), strict=False)), ip)
