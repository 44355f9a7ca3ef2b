"""`keyauth keys`: creating, showing, rotating and revoking keys, and errors."""

import asyncio
import hashlib
import json
import os
import pty
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.cli.parameters import parse_duration, parse_moment
from fastapi_keyauth.domain.tokens import TOKEN_PATTERN
from fastapi_keyauth.http.routers.schemas import CreatedKeyOut, KeyOut
from tests.docs.pages import ROOT
from tests.helpers.cli import keyauth, make, read, with_auth
from tests.helpers.keys import authenticate

RARE = {"disabled_by_admin", "exempt_from_policy"}
"""Fields that are only shown if they are true."""


def test_a_new_token_is_printed_on_stdout_only() -> None:
    result = keyauth("keys", "create", "--owner", "ada", "--name", "prod-api-server", "--expires-in", "30d")
    token = result.stdout.removesuffix("\n")
    assert TOKEN_PATTERN.fullmatch(token)
    assert "prod-api-server" in result.stderr
    assert not TOKEN_PATTERN.search(result.stderr)
    principal = with_auth(lambda auth: authenticate(auth, token))
    assert principal.name == "prod-api-server"
    assert abs(principal.expires_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    shown = keyauth("keys", "show", principal.id).output + keyauth("keys", "list", "--json").output
    assert not TOKEN_PATTERN.search(shown)


def test_every_field_of_a_key_can_be_given() -> None:
    options = "--scope a:b --scope c --environment test --hourly-limit 7 --origin https://a.example --ip 10.0.0.0/8"
    made = read(
        *("keys", "create", "--owner", "ada", "--name", "n", *options.split()),
        *("--expires-at", "2999-01-31", "--metadata", '{"team": "search"}'),
    )
    assert set(made) == set(CreatedKeyOut.model_fields) - RARE
    expected = {
        "scopes": ["a:b", "c"],
        "environment": "test",
        "hourly_limit": 7,
        "allowed_origins": ["https://a.example"],
        "allowed_ips": ["10.0.0.0/8"],
        "expires_at": "2999-01-31T00:00:00Z",
        "metadata": {"team": "search"},
    }
    assert {name: made[name] for name in expected} == expected
    del made["token"]
    shown = read("keys", "show", made["id"])
    assert [event["event"] for event in shown.pop("events")] == ["created"]
    assert shown == made


@pytest.mark.parametrize(
    "options",
    [
        ["--expires-in", "30"],
        ["--expires-in", "99999999y"],
        ["--expires-at", "soon"],
        ["--expires-at", "2999-01-01T12:00"],
        ["--expires-in", "1d", "--expires-at", "2999-01-01"],
        ["--expires-at", "2001-01-01"],
        ["--metadata", "[1]"],
        ["--metadata", "{"],
        ["--ip", "10.0.0.1/8"],
        ["--hourly-limit", "0"],
        ["--scope", "a b"],
        ["--nonsense"],
    ],
    ids=" ".join,
)
def test_invalid_options_exit_with_2_and_a_sentence(options: list[str]) -> None:
    result = keyauth("keys", "create", "--owner", "ada", "--name", "n", *options, code=2)
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("90s", 90), ("30m", 1800), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("1y", 31_536_000)],
)
def test_durations_are_written_with_their_unit(text: str, expected: int) -> None:
    assert parse_duration(text) == timedelta(seconds=expected)


def test_a_date_is_its_first_moment_in_utc() -> None:
    assert parse_moment("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC)
    assert parse_moment("2027-01-31T12:00:00+02:00") == datetime(2027, 1, 31, 10, tzinfo=UTC)


def test_lists_are_narrowed_down_and_turned_page_by_page() -> None:
    ids = [make(f"key {number}")[1] for number in range(3)]
    make_other = keyauth("keys", "create", "--owner", "eve", "--name", "key of eve", "--json")
    assert set(json.loads(make_other.stdout)) > set(KeyOut.model_fields) - RARE
    keyauth("keys", "revoke", ids[0])
    assert [key["id"] for key in read("keys", "list", "--owner", "ada")["items"]] == ids[::-1]
    assert [key["id"] for key in read("keys", "list", "--status", "revoked")["items"]] == [ids[0]]
    assert [key["name"] for key in read("keys", "list", "--q", "EVE")["items"]] == ["key of eve"]
    assert read("keys", "list", "--unused-for-days", "1") == {"items": [], "next_cursor": None}
    page = read("keys", "list", "--limit", "3")
    rest = read("keys", "list", "--limit", "3", "--cursor", page["next_cursor"])
    assert len(page["items"]) == 3
    assert (len(rest["items"]), rest["next_cursor"]) == (1, None)
    assert len(read("keys", "list", "--limit", "1", "--all")["items"]) == 4
    assert "--cursor" in keyauth("keys", "list", "--limit", "3").stderr
    assert "No matching keys" in keyauth("keys", "list", "--owner", "nobody").stderr


def test_names_are_shown_complete_and_unchanged() -> None:
    name = "[bold red]:boom:[/] " + "x" * 80
    _, id = make(name)
    for command in (["list"], ["show", id]):
        result = keyauth("keys", *command)
        assert name in result.stdout
        assert id in result.stdout
        assert "\x1b" not in result.stdout


def test_metadata_of_an_owner_does_not_control_the_terminal() -> None:
    notes = {"a\x1b[2J": "\x1b]52;c;cm0gLXJmIH4=\x07", "b": "x\nstatus  active\u202e", "c": ["\x9b2J"]}
    _, id = make("n", "--metadata", json.dumps(notes))
    shown = keyauth("keys", "show", id).stdout
    assert not set(shown) & set("\x1b\x07\x9b\u202e")
    assert r"metadata a\x1b[2J" in shown
    assert r"x\nstatus  active\u202e" in shown


def test_a_key_is_found_by_its_hint_and_a_whole_token_is_rejected() -> None:
    token, id = make()
    assert read("keys", "show", f"ka_live_{id}_…{token[-4:]}")["id"] == id
    refused = keyauth("keys", "show", token, code=2)
    assert id in refused.output.replace("\n", "")
    assert token[-20:] not in refused.output
    assert keyauth("keys", "show", "no-such-key", code=1).stderr == "A key with this id does not exist.\n"


def test_a_rotation_prints_the_new_token_and_keeps_the_old_one_for_a_while() -> None:
    old, id = make()
    result = keyauth("keys", "rotate", id, "--overlap", "2h")
    new = result.stdout.strip()
    assert "works until" in result.stderr
    assert len(read("keys", "show", id)["secrets"]) == 2

    async def see_both_work(auth: KeyAuth) -> None:
        for token in (old, new):
            assert (await authenticate(auth, token)).id == id

    with_auth(see_both_work)
    rotated = read("keys", "rotate", id, "--overlap", "0")
    assert set(rotated) == set(CreatedKeyOut.model_fields) - RARE
    assert [secret["hint"][-4:] for secret in rotated["secrets"]] == [rotated["token"][-4:]]
    keyauth("keys", "rotate", id, "--overlap", "8d", code=2)


def test_revoking_is_permanent_and_repeating_it_changes_nothing() -> None:
    _, id = make()
    keyauth("keys", "revoke", id)
    first = read("keys", "revoke", id)
    assert first["status"] == "revoked"
    assert read("keys", "revoke", id) == first
    assert "revoked" in keyauth("keys", "rotate", id, code=1).stderr
    error = json.loads(keyauth("keys", "revoke", "unknown12345", "--json", code=1).stderr)
    assert error["code"] == "not_found"


def test_usage_is_shown_hour_by_hour() -> None:
    token, id = make()
    with_auth(lambda auth: authenticate(auth, token))
    items = read("keys", "usage", id, "--hours", "3")["items"]
    assert [item["admitted"] for item in items] == [0, 0, 1]
    assert "█" in keyauth("keys", "usage", id).stdout


def test_revoking_on_a_terminal_requires_confirmation() -> None:
    """A real process on a real terminal: it asks, and 'n' leaves the key unchanged."""
    _, id = make("prod-api-server")
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "fastapi_keyauth.cli", "keys", "revoke", id]

    async def run() -> tuple[int, bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=terminal, stderr=asyncio.subprocess.PIPE, env=environment
        )
        os.write(controller, b"n\n")
        _, said = await process.communicate()
        return await process.wait(), said

    try:
        code, said = asyncio.run(run())
    finally:
        os.close(controller)
        os.close(terminal)
    assert code == 1
    assert b"prod-api-server" in said
    assert read("keys", "show", id)["status"] == "active"


def test_all_keys_of_a_file_are_imported_or_none() -> None:
    token = "old-" + "x" * 20
    good = f"ada,one,{hashlib.sha256(token.encode()).hexdigest()}\n"
    Path("keys.csv").write_text(f"owner_id,name,hash\n{good}ada,,{'0' * 64}\nada,n,{token}\n")
    said = keyauth("keys", "import", "keys.csv", code=1)
    assert re.findall(r"line (\d+): (\w+)", said.stderr) == [("3", "name"), ("4", "hash")]
    assert token not in said.output
    told = json.loads(keyauth("keys", "import", "keys.csv", "--json", code=1).stderr.splitlines()[-1])
    assert (told["code"], {line["line"] for line in told["lines"]}) == ("bad_lines", {3, 4})
    assert read("keys", "list")["items"] == []
    Path("keys.csv").write_text(f"owner_id,name,hash\n{good}")
    would = read("keys", "import", "keys.csv", "--dry-run")
    assert would == {"imported": 1, "skipped": 0, "with_all_scopes": 1, "dry_run": True}
    assert "1 of them name no scopes" in keyauth("keys", "import", "keys.csv", "--dry-run").stderr
    assert "imported_prefixes" in keyauth("keys", "import", "keys.csv").stderr
    assert read("keys", "import", "keys.csv", "--skip-existing")["skipped"] == 1
    record = {"owner_id": "ada", "name": "two", "hash": "0" * 64}
    assert read("keys", "import", "-", "--format", "jsonl", given=json.dumps(record))["imported"] == 1
    assert len(read("keys", "list")["items"]) == 2
    for wrong in (["no.csv"], ["keys"], ["-", "--format", "csv"]):
        keyauth("keys", "import", *wrong, code=2, given=f"{token},b\n")


def test_an_imported_key_whose_token_has_ended_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("keys.csv").write_text(f"owner_id,name,hash\nada,n,{'0' * 64}\n")
    keyauth("keys", "import", "keys.csv")
    (key,) = read("keys", "list")["items"]
    assert "No token" not in keyauth("keys", "show", key["id"]).output
    monkeypatch.setenv("KEYAUTH_IMPORTED_UNTIL", "2026-01-31T00:00:00Z")
    assert "No token of this key is valid any more" in keyauth("keys", "show", key["id"]).stderr
    keyauth("keys", "revoke", key["id"], "--yes")
    assert "No token" not in keyauth("keys", "show", key["id"]).output
