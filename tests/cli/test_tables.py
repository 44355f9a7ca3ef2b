"""Tables on stdout: what is shown, and that many rows take little work."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from rich.text import Text

from fastapi_keyauth.cli import output
from fastapi_keyauth.cli.tables import print_table


def test_cells_are_aligned_by_the_width_that_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[tuple[str | Text, ...]] = [("a", Text("active"), "7"), ("日本", "off", "1000"), ("x\x1b[2Jy", "", "")]
    print_table(("name", "status", "left"), rows, right=("left",))
    assert capsys.readouterr().out.splitlines() == [
        "name       status  left",
        "a          active     7",
        "日本       off     1000",
        "x\\x1b[2Jy",
    ]


def test_what_is_too_long_is_wrapped_and_nothing_is_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_WIDTH_IN_A_PIPE", 40)
    owner, detail = "o" * 45, "Neither the key nor its owner has a limit."
    print_table(("key", "owner", "detail"), [("zzuYac7OGwu4", owner, detail), ("next", "o", "d")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[1].startswith("zzuYac7OGwu4  ooo")
    start = len("zzuYac7OGwu4  ")
    parts = [line[start:].split("  ", 1) for line in lines[1:-1]]
    assert "".join(part[0].strip() for part in parts) == owner
    assert " ".join(part[1].strip() for part in parts if len(part) > 1) == detail
    assert lines[-1].split() == ["next", "o", "d"]


def test_the_first_column_is_never_wrapped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_WIDTH_IN_A_PIPE", 10)
    print_table(("key", "owner"), [("zzuYac7OGwu4", "ab")])
    assert capsys.readouterr().out.splitlines() == ["key           owner", "zzuYac7OGwu4  ab"]


def test_a_row_takes_few_calls(capsys: pytest.CaptureFixture[str]) -> None:
    """Rich's own tables made 955 for each row of an audit, so that 15,000 rows took ten seconds."""
    row = ("no_address_list", "zzuYac7OGwu4", "owner", "It may be used from any address.")
    assert (_count_calls(1100, row) - _count_calls(100, row)) / 1000 <= 150
    assert len(capsys.readouterr().out.splitlines()) == 1202


def _count_calls(rows: int, row: tuple[str, ...]) -> int:
    """Return the number of Python functions that are called while a table is printed."""
    calls = 0

    def note(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        print_table(("finding", "key", "owner", "detail"), [row] * rows)
    finally:
        sys.setprofile(before)
    return calls
