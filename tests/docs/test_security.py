"""docs/explanation/security.md is correct: every test that it names, every number, every requirement."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, ProblemType, find_rows

PAGE = DOCS / "explanation/security.md"
TEXT = PAGE.read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
TOP_10 = [f"API{number}" for number in range(1, 11)]


@cache
def names_in(path: Path) -> set[str]:
    """The names of a file's tests, those in classes too."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_every_test_that_is_named_exists(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in names_in(ROOT / path)


def test_every_threat_has_a_test() -> None:
    threats = TEXT.partition("## Threats\n")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert len(threats) >= 15
    assert [threat.splitlines()[0] for threat in threats if "- `tests/" not in threat] == []
    assert len(re.findall(r"- `tests/", TEXT)) == len(re.findall(r"- `tests/[\w/]+\.py::test_\w+`\n", TEXT))


@pytest.mark.parametrize("row", find_rows(PAGE, "data", "maximum"), ids=lambda row: row["data"])
def test_a_bound_is_the_one_that_the_code_has(row: ProblemType) -> None:
    if row["number"]:
        module = importlib.import_module("fastapi_keyauth." + row["module"].removesuffix(".py").replace("/", "."))
        assert getattr(module, row["number"]) in [int(number) for number in re.findall(r"\d+", row["maximum"])]


def test_requirements_have_the_form_of_asvs_and_stand_in_order() -> None:
    rows = find_rows(PAGE, "requirement", "level", "here")
    numbers = [re.findall(r"V(\d+)\.(\d+)\.(\d+)", row["requirement"])[0] for row in rows]
    assert len(numbers) > 40
    assert [tuple(map(int, number)) for number in numbers] == sorted(tuple(map(int, number)) for number in numbers)
    assert all(re.fullmatch(r"[1-3](-[1-3])?", row["level"]) for row in rows)


def test_every_risk_of_the_top_10_is_answered() -> None:
    assert [row["risk"].split()[0] for row in find_rows(PAGE, "risk", "here")] == TOP_10
