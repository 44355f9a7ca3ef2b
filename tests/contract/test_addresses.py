"""Section 4: the client's address, as allow lists and blocks show it."""

import pytest

from tests.helpers.stage import HOME, OpenScene, code_of
from tests.helpers.tokens import NO_TOKEN

# What is checked here happens before the store and the limiter, so one stack says it all.
STACKS = ("sqlite-memory",)

TRUSTED = ["10.0.0.0/8", "fd00::/8"]
PROXY = "10.0.0.1"


ENTRIES: list[tuple[str, list[str], str]] = [
    (HOME, [], HOME),
    (HOME, ["198.51.100.9"], HOME),
    (PROXY, [], PROXY),
    (PROXY, ["198.51.100.9"], "198.51.100.9"),
    (PROXY, ["  198.51.100.9  "], "198.51.100.9"),
    (PROXY, ["192.0.2.66, 198.51.100.9"], "198.51.100.9"),
    (PROXY, ["10.9.9.9, 192.0.2.66,198.51.100.9"], "198.51.100.9"),
    (PROXY, ["198.51.100.9, 10.0.0.2"], "198.51.100.9"),
    (PROXY, ["192.0.2.66, 198.51.100.9, 10.0.0.2, 10.0.0.3"], "198.51.100.9"),
    (PROXY, ["192.0.2.66", "198.51.100.9"], "198.51.100.9"),
    (PROXY, ["198.51.100.9", "10.0.0.2"], "198.51.100.9"),
    (PROXY, ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    (PROXY, ["10.0.0.3", "10.0.0.2"], "10.0.0.3"),
    (PROXY, ["198.51.100.9:4711"], "198.51.100.9"),
    (PROXY, ["198.51.100.9, 10.0.0.2:443"], "198.51.100.9"),
    (PROXY, ["[2001:db8::5]:4711"], "2001:db8::5"),
    (PROXY, ["2001:db8::5"], "2001:db8::5"),
    (PROXY, ["2001:db8::5, [fd00::1]:80"], "2001:db8::5"),
    (PROXY, ["::ffff:198.51.100.9"], "198.51.100.9"),
    (PROXY, ["garbage"], PROXY),
    (PROXY, ["198.51.100.9, garbage"], PROXY),
    (PROXY, ["198.51.100.9, unknown, 10.0.0.2"], PROXY),
    (PROXY, ["garbage, 198.51.100.9"], "198.51.100.9"),
    (PROXY, ["198.51.100.999"], PROXY),
    (PROXY, ["198.51.100.9:port"], PROXY),
    (PROXY, ["198.51.100.0/24"], PROXY),
    (PROXY, ["<script>, 10.0.0.2"], PROXY),
    ("fd00::7", ["198.51.100.9"], "198.51.100.9"),
    ("::ffff:10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
    ("::ffff:203.0.113.7", [], HOME),
    (PROXY, ["64:ff9b::198.51.100.9"], "198.51.100.9"),
    (PROXY, [", ".join(["192.0.2.66"] * 100 + ["198.51.100.9"])], "198.51.100.9"),
    (PROXY, [", ".join(["192.0.2.66"] * 100 + ["198.51.100.9", "10.0.0.2"])], "198.51.100.9"),
    (PROXY, ["192.0.2.66"] * 100 + ["198.51.100.9"], "198.51.100.9"),
    (PROXY, [", ".join(["198.51.100.9"] + ["10.0.0.2"] * 63)], "198.51.100.9"),
    (PROXY, [", ".join(["192.0.2.66", "198.51.100.9"] + ["10.0.0.2"] * 64)], PROXY),
]
"""The peer, its `X-Forwarded-For` lines, and the address."""


async def test_which_entry_is_the_address(open_scene: OpenScene) -> None:
    async with open_scene(trusted_proxies=TRUSTED, max_keys_per_owner=len(ENTRIES) + 1) as scene:
        wrong = await scene.key(allowed_ips=["192.0.2.0/24"])
        for peer, forwarded, address in ENTRIES:
            prefix_length = 128 if ":" in address else 32
            right = await scene.key(allowed_ips=[f"{address}/{prefix_length}"])
            headers = [("x-forwarded-for", line) for line in forwarded]
            answer = await scene.get(token=right.token, address=peer, headers=headers)
            assert answer.status_code == 200, (peer, forwarded, answer.text)
            answer = await scene.get(token=wrong.token, address=peer, headers=headers)
            assert code_of(answer) == "address_not_allowed", (peer, forwarded)


@pytest.mark.parametrize("peer", [HOME, PROXY])
async def test_no_other_header_moves_the_address(open_scene: OpenScene, peer: str) -> None:
    async with open_scene(trusted_proxies=TRUSTED) as scene:
        key = await scene.key(allowed_ips=["192.0.2.66/32"])
        for header in (
            ("forwarded", "for=192.0.2.66"),
            ("x-real-ip", "192.0.2.66"),
            ("x-client-ip", "192.0.2.66"),
            ("true-client-ip", "192.0.2.66"),
            ("cf-connecting-ip", "192.0.2.66"),
            ("x-forwarded-host", "192.0.2.66"),
        ):
            answer = await scene.get(token=key.token, address=peer, headers=[header])
            assert code_of(answer) == "address_not_allowed", header


async def test_without_trusted_proxies_the_peer_is_the_address(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key(allowed_ips=["198.51.100.9/32"])
        headers = [("x-forwarded-for", "198.51.100.9")]
        answer = await scene.get(token=key.token, address=PROXY, headers=headers)
        assert code_of(answer) == "address_not_allowed"


async def test_a_block_behind_a_proxy_affects_only_one_client(open_scene: OpenScene) -> None:
    async with open_scene(trusted_proxies=TRUSTED, block_after_failures=2) as scene:
        key = await scene.key()

        def from_client(address: str) -> list[tuple[str, str]]:
            return [("x-forwarded-for", f"192.0.2.66, {address}")]

        for _ in range(2):
            bad = from_client("198.51.100.9")
            await scene.get(token=NO_TOKEN, address=PROXY, headers=bad)
        answer = await scene.get(token=key.token, address=PROXY, headers=bad)
        assert code_of(answer) == "address_blocked"
        good = from_client("198.51.100.10")
        assert (await scene.get(token=key.token, address=PROXY, headers=good)).status_code == 200
        assert (await scene.get(token=key.token, address=PROXY)).status_code == 200
        direct = await scene.get(token=key.token, address="198.51.100.9")
        assert code_of(direct) == "address_blocked"


async def test_a_client_cannot_evade_its_count_by_forging_entries(open_scene: OpenScene) -> None:
    async with open_scene(trusted_proxies=TRUSTED, block_after_failures=3) as scene:
        for number in range(3):
            await scene.get(
                token=NO_TOKEN,
                address=PROXY,
                headers=[("x-forwarded-for", f"192.0.2.{number}, 10.0.0.9, 198.51.100.9")],
            )
        answer = await scene.get(token=NO_TOKEN, address=PROXY, headers=[("x-forwarded-for", "198.51.100.9")])
        assert code_of(answer) == "address_blocked"


ALLOW_LISTS: list[tuple[list[str], str, bool]] = [
    ([], HOME, True),
    (["203.0.113.0/24"], HOME, True),
    (["203.0.113.8/32"], HOME, False),
    (["192.0.2.0/24", "203.0.113.7/32"], HOME, True),
    (["0.0.0.0/0"], "2001:db8::1", False),
    (["::/0"], HOME, False),
    (["2001:db8::/32"], "2001:db8:ffff::1", True),
    (["2001:db8:1::/64"], "2001:db8:1:1::1", False),
    (["203.0.113.0/24"], "::ffff:203.0.113.7", True),
    (["203.0.113.0/24"], "64:ff9b::203.0.113.7", True),
    (["64:ff9b::203.0.113.0/120"], HOME, True),
    (["::ffff:0:203.0.113.0/120"], "198.51.100.9", False),
]
"""The list, the address, and whether it is admitted."""


async def test_which_addresses_an_allow_list_admits(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        for allowed, address, admitted in ALLOW_LISTS:
            key = await scene.key(allowed_ips=allowed)
            answer = await scene.get(token=key.token, address=address)
            assert code_of(answer) == (None if admitted else "address_not_allowed"), (allowed, address)
