"""Client addresses: parsing, trusted proxies, and the name under which an address is counted."""

from ipaddress import ip_address, ip_network

import pytest

from fastapi_keyauth.domain import ip_addresses
from fastapi_keyauth.domain.ip_addresses import (
    AddressResolver,
    is_in,
    parse_forwarded,
    parse_ip,
    parse_network,
    parse_networks,
)

CLIENT, PROXY = "198.51.100.9", "10.0.0.1"


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        (" 10.0.0.1 ", "10.0.0.1/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
        ("64:ff9b::10.0.0.1", "10.0.0.1/32"),
        ("::ffff:0:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/95", None),
        ("::fffe:0:0/95", "::fffe:0:0/95"),
        ("64:ff9b::/32", "64:ff9b::/32"),
        ("::ffff:0:0:0/80", "::ffff:0:0:0/80"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("10.0.0.1/8", None),
        ("fe80::1%eth0", None),
        ("x", None),
        ("", None),
        ("0" * 55 + "10.0.0.1/8", None),
    ],
)
def test_networks(text: str, network: str | None) -> None:
    if network is None:
        with pytest.raises(ValueError, match="a network is an address or CIDR"):
            parse_network(text)
    else:
        assert parse_network(text) == ip_network(network)


@pytest.mark.parametrize("spaces", [0, 1])
def test_the_longest_text_of_a_network(spaces: int) -> None:
    text = "10.0.0.1".ljust(64 + spaces)
    if spaces:
        with pytest.raises(ValueError, match="a network is"):
            parse_network(text)
    else:
        assert parse_network(text) == ip_network("10.0.0.1")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (CLIENT, CLIENT),
        ("::ffff:198.51.100.9", CLIENT),
        ("64:ff9b::198.51.100.9", CLIENT),
        ("::ffff:0:198.51.100.9", CLIENT),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::5", "2001:db8::5"),
        ("64:ff9b:1::198.51.100.9", "64:ff9b:1::c633:6409"),
        ("name", None),
    ],
)
def test_addresses(text: str, address: str | None) -> None:
    assert parse_ip(text) == (None if address is None else ip_address(address))


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        (CLIENT, CLIENT),
        (f" \t{CLIENT} ", CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        (f"{CLIENT}:65535", CLIENT),
        (f"{CLIENT}:", None),
        (f"{CLIENT}:port", None),
        (f"{CLIENT}:123456", None),
        (f"{CLIENT}:\u0663", None),
        ("[2001:db8::5]", "2001:db8::5"),
        ("[2001:db8::5]:4711", "2001:db8::5"),
        ("[2001:db8::5]:7", "2001:db8::5"),
        ("[2001:db8::5]:x711", None),
        ("[2001:db8::5]:", None),
        ("[2001:db8::5]4711", None),
        ("[2001:db8::5]:port", None),
        ("[2001:db8::5", None),
        (f"[{CLIENT}]", None),
        ("2001:db8::5", "2001:db8::5"),
        ("unknown", None),
        ("", None),
    ],
)
def test_forwarded_entries(entry: str, address: str | None) -> None:
    assert parse_forwarded(entry) == (None if address is None else ip_address(address))


def test_an_address_lies_only_in_networks_of_its_version() -> None:
    networks = parse_networks(("10.0.0.0/8", "fd00::/8"))
    assert [is_in(ip_address(text), networks) for text in ("10.1.1.1", "fd00::1", "11.0.0.1", "fe00::1")] == [
        True,
        True,
        False,
        False,
    ]
    assert not is_in(ip_address("::1"), parse_networks(("0.0.0.0/0",)))


def resolve(peer: str | None, *lines: str) -> str | None:
    resolver = AddressResolver([PROXY, "10.0.0.2"], 64)
    headers = [(b"host", b"192.0.2.1"), *((b"x-forwarded-for", line.encode()) for line in lines)]
    found = resolver.resolve(None if peer is None else (peer, 1), headers)
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("peer", "lines", "address"),
    [
        (None, [CLIENT], None),
        ("", [CLIENT], None),
        (CLIENT, ["192.0.2.1"], CLIENT),
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"192.0.2.66, {CLIENT}"], CLIENT),
        (PROXY, [f"192.0.2.66, {CLIENT}, 10.0.0.2"], CLIENT),
        (PROXY, [CLIENT, "10.0.0.2"], CLIENT),
        (PROXY, ["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        (PROXY, [f"{CLIENT}, x, 10.0.0.2"], PROXY),
        ("testclient", [CLIENT], "testclient"),
        ("x", [CLIENT], "x"),
        ("/run/socket", [CLIENT], None),
    ],
)
def test_which_address_counts(peer: str | None, lines: list[str], address: str | None) -> None:
    assert resolve(peer, *lines) == address


def test_a_peer_of_more_than_255_characters_is_not_an_address() -> None:
    host = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert resolve(host) == host
    assert resolve("fe80::1%".ljust(255, "a")) == "fe80::1"
    assert resolve("fe80::1%".ljust(256, "a")) is None


def test_a_peer_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def parse(text: str) -> ip_addresses.IPAddress | None:
        parsed.append(text)
        return parse_ip(text)

    monkeypatch.setattr(ip_addresses, "parse_ip", parse)
    resolver = AddressResolver([], 64)
    found = [resolver.resolve((peer, 1), []) for peer in (CLIENT, PROXY, CLIENT, "name", PROXY, "name")]
    assert [address and address.text for address in found] == [CLIENT, PROXY, CLIENT, "name", PROXY, "name"]
    assert parsed == [CLIENT, PROXY, "name"]


def test_of_more_than_64_entries_the_rightmost_are_read() -> None:
    left = ["192.0.2.66"] * 100
    assert resolve(PROXY, ", ".join([*left, CLIENT])) == CLIENT
    assert resolve(PROXY, *left, CLIENT) == CLIENT
    assert resolve(PROXY, ", ".join([*left, CLIENT, *["10.0.0.2"] * 62])) == CLIENT
    assert resolve(PROXY, ", ".join([CLIENT, *["10.0.0.2"] * 63])) == CLIENT
    assert resolve(PROXY, ", ".join([*left, CLIENT, *["10.0.0.2"] * 64])) == PROXY


@pytest.mark.parametrize(
    ("peer", "bucket"),
    [
        (CLIENT, CLIENT),
        ("::ffff:198.51.100.9", CLIENT),
        ("2001:db8:1:2:3::5", "2001:db8:1:2::/64"),
        ("TestClient", "testclient."),
    ],
)
def test_the_name_under_which_an_address_counts(peer: str, bucket: str) -> None:
    found = AddressResolver([], 64).resolve((peer, 1), [(b"x-forwarded-for", b"192.0.2.1")])
    assert found is not None
    assert found.bucket == bucket
    assert (found.ip is None) == peer.startswith("Test")
