"""`keyauth keys update`, `disable` and `enable`."""

from datetime import UTC, datetime, timedelta

import pytest

from fastapi_keyauth.cli.runner import operating_system_user
from fastapi_keyauth.parts import Parts
from tests.helpers.cli import NOBODY, keyauth, make, read


def test_only_what_is_named_is_changed_and_the_sentence_names_it() -> None:
    _, id = make("n", "--scope", "a", "--origin", "https://a.example", "--metadata", '{"team": "search"}')
    before = read("keys", "show", id, "--events", "0")
    said = keyauth("keys", "update", id, "--name", "prod", "--hourly-limit", "7", "--ip", "10.0.0.0/8")
    assert said.stdout == ""
    assert "name, hourly_limit, allowed_ips" in said.stderr
    changed = {"name": "prod", "hourly_limit": 7, "allowed_ips": ["10.0.0.0/8"]}
    after = read("keys", "show", id, "--events", "0")
    assert [limit["limit"] for limit in after["limits"]] == [7]  # which `hourly_limit` is short for
    assert after == before | changed | {"limits": after["limits"]}
    assert "is unchanged" in keyauth("keys", "update", id, "--name", "prod").stderr


def test_every_field_can_be_changed_and_a_list_is_replaced() -> None:
    _, id = make("n", "--scope", "a", "--ip", "10.0.0.0/8")
    changed = read(
        *("keys", "update", id, "--scope", "b", "--scope", "c", "--origin", "https://b.example", "--ip", "192.0.2.1"),
        *("--expires-at", "2999-01-31", "--metadata", '{"team": "ops"}'),
    )
    expected = {
        "scopes": ["b", "c"],
        "allowed_origins": ["https://b.example"],
        "allowed_ips": ["192.0.2.1"],
        "expires_at": "2999-01-31T00:00:00Z",
        "metadata": {"team": "ops"},
    }
    assert {name: changed[name] for name in expected} == expected
    in_a_day = datetime.fromisoformat(read("keys", "update", id, "--expires-in", "1d")["expires_at"])
    assert abs(in_a_day - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=5)


def test_a_restriction_can_be_removed() -> None:
    options = "--hourly-limit 7 --origin https://a.example --ip 10.0.0.0/8 --expires-in 30d"
    _, id = make("n", *options.split())
    changed = read("keys", "update", id, "--default-limit", "--any-origin", "--any-ip", "--never-expires")
    bounds = ("hourly_limit", "allowed_origins", "allowed_ips", "expires_at")
    assert [changed[name] for name in bounds] == [1000, [], [], None]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--expires-in", "1d", "--expires-at", "2999-01-01"],
        ["--expires-in", "1d", "--never-expires"],
        ["--hourly-limit", "7", "--default-limit"],
        ["--origin", "https://a.example", "--any-origin"],
        ["--ip", "10.0.0.0/8", "--any-ip"],
        ["--ip", "10.0.0.1/8"],
        ["--expires-at", "2001-01-01"],
        ["--name", " "],
    ],
    ids=" ".join,
)
def test_an_invalid_change_exits_with_2_and_changes_nothing(options: list[str]) -> None:
    _, id = make("n", "--hourly-limit", "3")
    before = read("keys", "show", id)
    assert keyauth("keys", "update", id, *options, code=2).stderr
    assert read("keys", "show", id) == before


def test_a_key_is_switched_off_and_on() -> None:
    _, id = make("n")
    assert f"Key {id} (n, ada) is disabled" in keyauth("keys", "disable", id).stderr
    assert read("keys", "show", id)["status"] == "disabled"
    assert read("keys", "disable", id)["enabled"] is False
    assert read("keys", "enable", id)["status"] == "active"
    assert "is enabled" in keyauth("keys", "enable", id).stderr
    keyauth("keys", "revoke", id, "--yes")
    assert "revoked" in keyauth("keys", "enable", id, code=1).stderr
    assert keyauth("keys", "disable", "000000000000", code=1).stdout == ""


def test_the_history_names_the_user_and_the_reason() -> None:
    _, id = make("n")
    actor = f"cli:{operating_system_user()}"
    keyauth("keys", "disable", id, "--reason", "audit")
    keyauth("keys", "enable", id)
    keyauth("keys", "update", id, "--name", "m", "--reason", "renamed")
    keyauth("keys", "rotate", id, "--reason", "yearly")
    keyauth("keys", "revoke", id, "--reason", "moved")
    shown = read("keys", "show", id)
    assert shown["created_by"] == actor
    assert {event["actor"] for event in shown["events"]} == {actor}
    assert [event["reason"] for event in shown["events"]] == ["moved", "yearly", "renamed", None, "audit", None]
    assert "yearly" in keyauth("keys", "show", id).stdout
    assert [key["id"] for key in read("keys", "list", "--created-by", actor)["items"]] == [id]
    assert read("keys", "list", "--created-by", "code")["items"] == []


def test_enabling_reports_other_reasons_why_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, id = make("n", "--expires-in", "30d")
    keyauth("keys", "disable", id)
    later = datetime.now(UTC) + timedelta(days=31)
    monkeypatch.setattr(Parts, "now", lambda _: later)
    assert "expired" in keyauth("keys", "enable", id).stderr


def test_an_empty_answer_names_the_database_so_that_a_wrong_folder_is_seen() -> None:
    assert "sqlite+aiosqlite:///./keyauth.db" in keyauth("keys", "list").stderr


def test_an_overlap_that_is_too_long_is_reported_in_the_units_of_the_option() -> None:
    _, id = make()
    refused = keyauth("keys", "rotate", id, "--overlap", "8d", code=2)
    assert "--overlap" in refused.stderr
    assert "7d" in refused.stderr


def test_a_change_without_redis_in_reach_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    _, id = make()
    monkeypatch.setenv("KEYAUTH_REDIS_URL", NOBODY)
    assert "stored" in keyauth("keys", "disable", id, code=4).stderr
    assert read("keys", "show", id)["status"] == "disabled"
