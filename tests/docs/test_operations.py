"""docs/reference/telemetry.md matches the code: log lines, warnings, events, instruments, spans."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import pytest
from opentelemetry.metrics import MeterProvider, NoOpMeter

from fastapi_keyauth import AuthEvent, EventKind
from fastapi_keyauth.concurrency import log_throttle as seldom
from fastapi_keyauth.settings.check_warnings import SENTENCES
from fastapi_keyauth.telemetry import event_hook as hook
from fastapi_keyauth.telemetry.opentelemetry import PREFIX, Board
from tests.docs.pages import DOCS, ROOT, ProblemType, find_rows

PAGE = DOCS / "reference/telemetry.md"
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LINES = find_rows(PAGE, "level", "line", "keyauth_event")
LEVELS = {"exception": "ERROR"}
ANY = "*"


@dataclass(frozen=True)
class Call:
    """A call of the package's logger. `events` are those that it gives to `keyauth_event`."""

    place: str
    level: str
    line: str
    events: set[str]

    def __str__(self) -> str:
        return self.place


def find_calls() -> Iterator[Call]:
    """Every place in the package that logs."""
    for path in SOURCES:
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)) if "logger." in source else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = node.func.value
                if isinstance(name, ast.Name) and name.id == "logger" and node.func.attr != "isEnabledFor":
                    level = LEVELS.get(node.func.attr, node.func.attr.upper())
                    (line,) = (one.value for one in node.args[:1] if isinstance(one, ast.Constant))
                    yield Call(f"{path.name}:{node.lineno}", level, str(line), set(_events_of(node)))


def _events_of(call: ast.Call) -> Iterator[str]:
    for node in ast.walk(call):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "keyauth_event":
                    yield str(value.value) if isinstance(value, ast.Constant) else ANY


CALLS = list(find_calls())


def is_of(row: ProblemType, call: Call) -> bool:
    """Whether a row is about a call. Parts of the row in angle brackets stand for what the line fills in."""
    pattern = re.compile(r".+?".join(map(re.escape, re.split(r"'?<[^>]+>'?", row["line"]))))
    return row["level"] == call.level and pattern.fullmatch(call.line) is not None


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_every_line_that_is_logged_is_in_the_table_and_has_its_field(call: Call) -> None:
    rows = [row for row in LINES if is_of(row, call)]
    if len(rows) > 1:  # the row of a whole sentence fits all
        rows = [row for row in rows if row["line"] != "<a sentence>"]
    assert len(rows) == 1, call.line
    assert call.events
    assert call.events <= {ANY, *re.findall(r"\w+", rows[0]["keyauth_event"])}


@pytest.mark.parametrize("row", LINES, ids=lambda row: row["line"])
def test_every_line_in_the_table_is_logged(row: ProblemType) -> None:
    assert any(is_of(row, call) for call in CALLS)
    assert row["meaning"]
    assert row["action"]


def test_every_warning_of_the_start_is_in_the_table_word_for_word() -> None:
    rows = {row["code"]: row["sentence"] for row in find_rows(PAGE, "code", "sentence")}
    assert rows == {code: re.sub(r"\{(\w+)(?:!r)?\}", r"<\1>", sentence) for code, sentence in SENTENCES.items()}


def test_every_kind_of_event_and_every_field_is_named() -> None:
    rows = find_rows(PAGE, "kind", "when", "fields")
    kinds = [kind for row in rows for kind in re.findall(r"\w+", row["kind"])]
    assert sorted(kinds) == sorted(get_args(EventKind))
    text = PAGE.read_text("utf-8")
    for field in fields(AuthEvent):
        assert field.name == "kind" or f"`{field.name}`" in text, field.name


def test_the_bounds_of_the_hook_are_the_real_ones() -> None:
    text = " ".join(PAGE.read_text("utf-8").split())
    assert f"When {hook.MAX_WAITING} events are waiting" in text
    assert f"At shutdown, the hook has {hook.CLOSE_WAIT_S:g} seconds" in text
    assert f"At most one line every {seldom.EVERY_S:g} seconds" in text


class NotingMeter(NoOpMeter):
    """Notes which instruments are made."""

    def __init__(self, notes: dict[str, str]) -> None:
        super().__init__("fastapi_keyauth")
        self._notes = notes

    def create_histogram(self, name: str, unit: str = "", description: str = "", **options: Any) -> Any:
        self._notes[name] = f"histogram, `{unit}"
        return super().create_histogram(name, unit, description, **options)

    def create_observable_counter(self, name: str, callbacks: Any = None, unit: str = "", description: str = "") -> Any:
        self._notes[name] = f"counter, `{unit}"
        return super().create_observable_counter(name, callbacks, unit, description)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> Any:
        self._notes[name] = f"up-down counter, `{unit}"
        return super().create_observable_up_down_counter(name, callbacks, unit, description)


class NotingProvider(MeterProvider):
    """Gives out one meter that notes."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def get_meter(self, *_: Any, **__: Any) -> Any:
        return NotingMeter(self.notes)


def test_every_instrument_is_in_the_table_with_its_type_and_unit() -> None:
    provider = NotingProvider()
    Board(provider)
    rows = {row["instrument"]: row["type and unit"] for row in find_rows(PAGE, "instrument", "type and unit")}
    assert rows == provider.notes


def test_every_attribute_and_every_span_is_named() -> None:
    source = (ROOT / "src/fastapi_keyauth/telemetry/opentelemetry.py").read_text("utf-8")
    text = PAGE.read_text("utf-8")
    attributes = set(re.findall(r'"(keyauth\.[\w.]+|error\.type)": ', source)) | {PREFIX}
    attributes |= set(re.findall(r'set_attribute\("([\w.]+)"', source))
    assert {name for name in attributes if f"`{name}`" not in text} == set()
    spans = {name for path in SOURCES for name in re.findall(r'span\("([\w.]+)"', path.read_text("utf-8"))}
    assert {row["span"] for row in find_rows(PAGE, "span", "around")} == spans


def test_event_kinds_have_a_docstring_of_their_own() -> None:
    assert EventKind.__doc__ != Literal["x"].__doc__
    assert "on_event" in str(EventKind.__doc__)
