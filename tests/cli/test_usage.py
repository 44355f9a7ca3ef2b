"""`keyauth usage`."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.helpers.cli import keyauth, make, read, with_auth
from tests.helpers.keys import authenticate


def test_usage_is_reported_as_a_table_as_json_and_as_csv() -> None:
    token, key_id = make()

    async def use(auth: Any) -> None:
        for _ in range(3):
            await authenticate(auth, token)

    with_auth(use)
    today = datetime.now(UTC).date()
    span = ("--from", str(today), "--to", str(today + timedelta(days=2)))
    days = read("usage", *span)["items"]
    assert sum(item["units"]["requests"] for item in days) == 3
    assert not days[-1]["closed"]
    by_key = {"key_id": key_id, "units": {"requests": 3}, "refused": 0, "closed": False}
    assert read("usage", *span, "--by", "key", "--owner", "ada") == {"items": [by_key]}
    assert read("usage", *span, "--by", "key", "--owner", "bob") == {"items": []}
    assert read("usage", *span, "--by", "unit", "--key", key_id)["items"][0]["unit"] == "requests"
    lines = keyauth("usage", *span, "--by", "key", "--format", "csv").stdout_bytes
    assert lines == f"key_id,requests,refused,closed\r\n{key_id},3,0,false\r\n".encode()
    assert "open" in keyauth("usage", *span).stdout
    assert keyauth("usage").stdout
    nothing = keyauth("usage", "--owner", "bob", "--by", "unit")
    assert (nothing.stdout, "No matching usage in sqlite" in nothing.stderr) == ("", True)


def test_invalid_reports_are_named() -> None:
    assert "from" in keyauth("usage", "--from", "yesterday", code=2).output
    assert "to" in keyauth("usage", "--from", "2026-11-02", "--to", "2026-11-01", code=2).output
    keyauth("usage", "--by", "week", code=2)
    keyauth("usage", "--format", "xml", code=2)
    keyauth("usage", "--key", "0123456789ab", code=1)
