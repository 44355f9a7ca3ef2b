"""`keyauth sessions`, `token` and `blocks`."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.domain.tokens import format_token, new_session_token
from tests.helpers.cli import keyauth, make, read, with_auth


def test_sessions_are_started_and_ended() -> None:
    def is_alive(token: str) -> bool:
        connection: Any = None
        return with_auth(lambda auth: auth.sessions.resolve(token, connection)) is not None

    first = keyauth("sessions", "create", "--user", "ada", "--ttl", "1h").stdout.strip()
    second = read("sessions", "create", "--user", "ada", "--scope", "admin")["token"]
    assert (is_alive(first), is_alive(second)) == (True, True)
    keyauth("sessions", "revoke", given=first + "\n")
    assert (is_alive(first), is_alive(second)) == (False, True)
    keyauth("sessions", "revoke", "--user", "ada", "--json")
    assert is_alive(second) is False
    keyauth("sessions", "revoke", given="nonsense", code=2)
    keyauth("sessions", "revoke", first, "--user", "ada", code=2)


GOOD = format_token("ka", "live", "0123456789ab", "s" * 43)
FOREIGN = format_token("acme", "test", "0123456789ab", "s" * 43)


@pytest.mark.parametrize(
    ("token", "code", "expected"),
    [
        (GOOD, 0, {"prefix": "ka", "is_our_prefix": True, "environment": "live", "checksum": "good"}),
        (FOREIGN, 0, {"prefix": "acme", "is_our_prefix": False, "id": "0123456789ab", "checksum": "good"}),
        (GOOD[:-1] + "!", 1, None),
        (GOOD[:-4], 1, None),
        (GOOD[:-9] + "x" + GOOD[-8:], 1, {"id": "0123456789ab", "checksum": "bad: mistyped or cut off"}),
        (new_session_token(), 0, {"kind": "session", "checksum": "good"}),
        (f'"{GOOD}"', 1, None),
        (" \n", 2, None),
    ],
    ids=["ours", "another prefix", "a wrong character", "cut off", "mistyped", "a session", "in quotes", "nothing"],
)
def test_a_token_is_inspected_offline(token: str, code: int, expected: dict[str, Any] | None) -> None:
    result = keyauth("token", "inspect", "--json", given=token + "\n", code=code)
    for output in (result.output, keyauth("token", "inspect", given=token, code=code).output):
        assert "sss" not in output
        assert token.strip('" \n')[-10:] not in output or not token.strip()
    if expected is not None:
        assert expected.items() <= json.loads(result.stdout).items()
    assert not Path("keyauth.db").exists()


def test_a_token_as_an_argument_is_accepted_with_a_warning() -> None:
    result = keyauth("token", "inspect", GOOD)
    assert "standard input" in result.stderr
    assert "0123456789ab" in result.stdout


def test_blocks_are_listed_and_lifted(redis_url: str) -> None:
    async def block(auth: KeyAuth) -> None:
        for bucket in ("192.0.2.1", "192.0.2.2", "2001:db8::/64"):
            await auth._parts.limiter.record_failure(bucket)

    assert "No address" in keyauth("blocks", "list").stderr
    with_auth(block)
    assert {item["address"] for item in read("blocks", "list")["items"]} == {"192.0.2.1", "192.0.2.2", "2001:db8::/64"}
    assert "2001:db8::/64" in keyauth("blocks", "list").stdout
    assert read("blocks", "clear", "192.0.2.1", "192.0.2.9") == {"cleared": ["192.0.2.1"]}
    assert "None of these" in keyauth("blocks", "clear", "192.0.2.1", code=1).stderr
    assert "2001:db8::/64" in keyauth("blocks", "clear", "--all").stderr
    assert read("blocks", "clear", "--all") == {"cleared": []}
    for wrong in ([], ["--all", "192.0.2.1"], ["localhost"]):
        keyauth("blocks", "clear", *wrong, code=2)


def test_without_redis_blocks_cannot_be_listed() -> None:
    for command in (["list"], ["clear", "192.0.2.1"]):
        assert "redis_url" in keyauth("blocks", *command, code=1).stderr


def test_audit_lists_findings_and_ends_with_1() -> None:
    assert keyauth("audit").stderr == "There are no findings.\n"
    _, id = make()
    result = keyauth("audit", code=1)
    assert all(word in result.stdout for word in ("never_expires", "all_scopes", id))
    found = json.loads(keyauth("audit", "--owner", "ada", "--json", code=1).stdout)["items"]
    assert {item["key_id"] for item in found} == {id}
    assert json.loads(keyauth("audit", "--owner", "bob", "--json").stdout) == {"items": []}


def test_audit_lists_only_the_findings_that_were_named() -> None:
    _, id = make()
    found = json.loads(keyauth("audit", "--finding", "all_scopes", "--finding", "admin", "--json", code=1).stdout)
    detail = "It holds every scope of the application (*)."
    assert found["items"] == [{"finding": "all_scopes", "key_id": id, "owner_id": "ada", "detail": detail}]
    assert "never_expires" not in keyauth("audit", "--finding", "all_scopes", code=1).stdout
    assert keyauth("audit", "--finding", "admin").stderr == "There are no such findings.\n"
    refused = keyauth("audit", "--finding", "expired", code=2)
    assert "never_expires" in refused.stderr


def test_key_can_be_exempt_from_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYAUTH_MAX_KEY_TTL_S", "3600")
    exempt = read("keys", "create", "--owner", "ada", "--name", "n", "--exempt-from-policy")
    assert exempt["expires_at"] is None
    refused = keyauth("keys", "create", "--owner", "ada", "--name", "n", "--expires-in", "2h", code=2)
    assert "max_key_ttl_s (3600 seconds)" in refused.stderr
    assert "changed: exempt_from_policy" in keyauth("keys", "update", exempt["id"], "--not-exempt-from-policy").stderr
    assert read("keys", "show", exempt["id"])["expires_at"] is not None
