"""`keyauth owners`."""

import getpass
from typing import Any

from tests.helpers.cli import keyauth, read, with_auth

DAY = '{"name": "day", "limit": 5, "per": "day"}'


def test_an_owner_is_limited_suspended_and_resumed() -> None:
    assert read("owners", "show", "p")["limits"] == []
    shown = read("owners", "set", "p", "--name", "Project", "--limit", DAY)
    assert (shown["name"], shown["limits"][0]["remaining"]) == ("Project", 5)
    assert "5 requests" in keyauth("owners", "show", "p").stdout
    assert read("owners", "set", "p", "--no-limits")["limits"] == []
    assert read("owners", "suspend", "p", "--reason", "unpaid")["reason"] == "unpaid"
    assert read("owners", "resume", "p")["suspended_at"] is None
    keyauth("owners", "set", "p", code=2)
    keyauth("owners", "set", "p", "--limit", DAY, "--no-limits", code=2)
    keyauth("owners", "set", "p", "--limit", '{"name": "day"}', code=2)


def test_the_keys_of_an_owner_and_of_a_creator_are_revoked() -> None:
    async def create(auth: Any) -> list[str]:
        of_bob = auth.keys.acting_as("user:bob")
        return [(await keys.create(owner, "k")).key.id for keys, owner in ((auth.keys, "p"), (of_bob, "q"))]

    ids = with_auth(create)
    keyauth("owners", "revoke-keys", code=2)
    assert read("owners", "revoke-keys", "p", "--reason", "left") == {"revoked": 1}
    assert read("owners", "revoke-keys", "--created-by", "user:bob") == {"revoked": 1}
    last = read("keys", "show", ids[0])["events"][0]
    assert (last["event"], last["actor"], last["reason"]) == ("revoked", f"cli:{getpass.getuser()}", "left")


def test_an_erasure_is_confirmed_first() -> None:
    read("keys", "create", "--owner", "p", "--name", "k")
    keyauth("owners", "erase", "p", given="n\n", code=1)
    assert read("owners", "show", "p")["keys"]["active"] == 1
    assert read("owners", "erase", "p", "--yes")["keys"] == 1
    assert read("owners", "show", "p")["keys"]["revoked"] == 0
