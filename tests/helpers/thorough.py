"""Selection and order of the tests in a run.

`make test` runs each case on one of its stacks, `make test THOROUGH=1` on all of them.

Only repetition is reduced. Every case runs in every run, on a stack chosen by its name, so that each stack
gets its share of every module.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import defaultdict
from pathlib import Path

import pytest

BROWSER = "dashboard"
LONG = [
    BROWSER,
    "reliability/test_short.py",
    "example/test_openapi.py",
    "contract/test_changes_take_effect_immediately.py",
    "example/test_walkthrough.py",
    "example/test_workers.py",
    "unit/limiter/test_redis_outage.py",
    "contract/test_races.py",
    "reliability/test_bill.py",
    "unit/store/test_database_outage.py",
    "unit/store/test_migrations.py",
    "unit/domain/test_regular_expressions.py",
    "simulation/test_leases.py",
]
"""Modules, and one folder, with long tests. They run first, so that no process is left alone with one at the end."""
IS_THOROUGH = os.environ.get("THOROUGH_TESTS", "") not in ("", "0")


def turns(thorough: int, brief: int) -> int:
    """Return the number of repetitions."""
    return thorough if IS_THOROUGH else brief


def thin_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep one stack of each case, unless the run is thorough or one stack was selected (`-k valkey`)."""
    if IS_THOROUGH or config.option.keyword or any("::" in argument for argument in config.args):
        return
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        stack = _stack_of(item)
        if stack is not None:
            cases[re.sub(rf"(?<=[\[-]){re.escape(stack)}(?=[\]-])", "", item.nodeid)].append(item)
    kept = {case: group[zlib.crc32(case.encode()) % len(group)] for case, group in cases.items()}
    left_out = {item for case, group in cases.items() for item in group if item is not kept[case]}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def begin_with_long(items: list[pytest.Item]) -> None:
    """Move the long modules to the front; the rest keeps its order."""
    place = {(Path(__file__).parents[1] / name).resolve(strict=True): number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, place.get(item.path.parent, len(place))))


def scope_of(file: str) -> str:
    """Return what one process of pytest-xdist runs together: a module, or all browser tests, which share a browser."""
    return BROWSER if file.startswith(f"tests/{BROWSER}/") else file


def _stack_of(item: pytest.Item) -> str | None:
    """Return the part of the name that repeats a case: the stack, or for the example application also the database."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return None
    params = item.callspec.params
    stack = params.get("stack") or (params.get("database_url") if item.path.parent.name == "example" else None)
    return stack if isinstance(stack, str) else None
