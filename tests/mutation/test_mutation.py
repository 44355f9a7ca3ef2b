"""The mutation tester itself: its changes, and its failures."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mutation import __main__ as command
from tests.mutation import explained
from tests.mutation.mutants import Mutant, find_mutants
from tests.mutation.runner import Run, judge
from tests.mutation.targets import TARGETS, Target

ROOT = Path(__file__).parents[2]
PYTHON = '''"""A module."""

def f(a: int) -> int:
    """Return a number."""
    if a < 1 and not a:
        raise ValueError("small")
    return a + 1
'''
LUA = """-- 1 < 2
local n = tonumber(ARGV[2])
redis.call('SET', KEYS[1], 'a == b')
if n >= 3 and n ~= 5 then return n + 1 end -- 7
"""


def changes_of(folder: Path, name: str, source: str) -> list[str]:
    (folder / name).write_text(source)
    return [mutant.change for mutant in find_mutants(folder, name)]


def test_changes_of_python(tmp_path: Path) -> None:
    assert changes_of(tmp_path, "a.py", PYTHON) == [
        "a < 1 and not a -> not (a < 1 and not a)",
        "< -> <=",
        "1 -> 2",
        "and -> or",
        "not a -> (a)",
        'raise ValueError("small") -> pass',
        "a + 1 -> None",
        "+ -> -",
        "1 -> 2",
    ]


def test_changes_of_lua(tmp_path: Path) -> None:
    assert changes_of(tmp_path, "a.lua", LUA) == [
        "2 -> 3",
        "redis.call('SET', KEYS[1], 'a == b') -> do end",
        "1 -> 2",
        ">= -> >",
        "3 -> 4",
        "and -> or",
        "~= -> ==",
        "5 -> 6",
        "+ -> -",
        "1 -> 2",
    ]


def test_an_id_stays_while_other_places_change(tmp_path: Path) -> None:
    (tmp_path / "a.lua").write_text(LUA)
    before = {mutant.id for mutant in find_mutants(tmp_path, "a.lua")}
    (tmp_path / "a.lua").write_text("local x = 9\n" + LUA)
    after = {mutant.id for mutant in find_mutants(tmp_path, "a.lua")}
    assert len(before) == 10
    assert before < after


def test_every_target_and_its_tests_exist() -> None:
    for target in TARGETS:
        assert find_mutants(ROOT / "src/fastapi_keyauth", target.path)
        assert [path for path in target.tests if not (ROOT / path).exists()] == []


OUTPUT = """F
=========================== short test summary info ============================
FAILED tests/a.py::test_it[a-b - c d] - assert 1 == 2
1 failed in 0.10s
"""


def test_a_run_names_the_test_that_failed() -> None:
    assert Run(1, 0.1, OUTPUT).killer == "tests/a.py::test_it[a-b - c d]"
    assert Run(2, 0.1, "ERROR tests/a.py::test_it - fixture\n").killer == "tests/a.py::test_it"
    assert Run(0, 0.1, "1 passed in 0.10s\n").killer is None


def test_tests_that_killed_earlier_mutants_run_first(tmp_path: Path) -> None:
    (tmp_path / "a.lua").write_text(LUA)
    outputs = ["FAILED tests/a.py::test_1\n", "", "FAILED tests/a.py::test_2\n", "FAILED tests/a.py::test_1\n", ""]
    firsts: list[list[str]] = []

    class Copy:
        def start(self, _target: Target, _mutant: Mutant, first: Sequence[str]) -> None:
            firsts.append([*first])

        def poll(self, _timeout_s: float) -> Run:
            output = outputs[len(firsts) - 1]
            return Run(1 if output else 0, 0.1, output)

    copies: Any = [Copy()]
    verdicts = [verdict for _, verdict in judge(find_mutants(tmp_path, "a.lua")[:5], TARGETS[0], copies, 1.0)]
    assert verdicts == ["killed", "survived", "killed", "killed", "survived"]
    one, two = "tests/a.py::test_1", "tests/a.py::test_2"
    assert firsts == [[], [one], [one], [two, one], [one, two]]


Mutate = Callable[..., int]


@pytest.fixture
def mutate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mutate:
    """Run the command on one small file; verdicts come from a function instead of from pytest."""
    page = tmp_path / "mutation.md"
    source = tmp_path / "src/fastapi_keyauth/a.lua"
    source.parent.mkdir(parents=True)
    source.write_text("if 1 < 2 then end\n")
    (tmp_path / "test_a.py").write_text("")
    calls: list[str] = []

    @contextmanager
    def copied_tree() -> Iterator[object]:
        yield object()

    def run(survivors: Sequence[str] = (), explain: Sequence[str] = ()) -> int:
        rows = [f"| `{mutant_id}` | a.lua | 1 | a reason of more than twenty characters |" for mutant_id in explain]
        page.write_text("\n".join(rows) + "\n")

        def judge(mutants: Sequence[Mutant], *_: Any) -> Iterator[tuple[Mutant, str]]:
            for mutant in mutants:
                calls.append(mutant.id)
                yield mutant, "survived" if mutant.change in survivors else "killed"

        monkeypatch.setattr(command, "judge", judge)
        return command.main()

    monkeypatch.setattr(explained, "PAGE", page)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "TARGETS", (Target("a.lua", ("test_a.py",)),))
    monkeypatch.setattr(command, "copied_tree", copied_tree)
    monkeypatch.setattr(command, "run_baseline", lambda *_: Run(0, 1.0, ""))
    monkeypatch.setattr("sys.argv", ["mutate"])
    monkeypatch.setattr(run, "calls", calls, raising=False)
    return run


def test_a_survivor_fails_the_command_and_is_named(mutate: Mutate, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutate(survivors=["< -> <="]) == 1
    assert "SURVIVED" in capsys.readouterr().out


def test_a_survivor_that_the_page_explains_passes(
    mutate: Mutate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [mutant] = [one for one in find_mutants(tmp_path / "src/fastapi_keyauth", "a.lua") if one.change == "< -> <="]
    assert mutate(survivors=[mutant.change], explain=[mutant.id]) == 0
    assert "SURVIVED" not in capsys.readouterr().out


def test_one_mutant_can_be_tested_alone(
    mutate: Mutate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = find_mutants(tmp_path / "src/fastapi_keyauth", "a.lua")[-1]
    monkeypatch.setattr("sys.argv", ["mutate", "--mutant", last.id])
    assert mutate() == 0
    assert mutate.calls == [last.id]  # type: ignore[attr-defined]  # of the fixture
    assert "1 of 1 killed" in capsys.readouterr().out


def test_an_explanation_of_a_mutant_that_does_not_exist_fails_the_command(
    mutate: Mutate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutate() == 0
    assert mutate(explain=["00000000"]) == 1
    assert "no longer exist: 00000000" in capsys.readouterr().out


def test_results_are_kept_until_a_test_changes(mutate: Mutate, tmp_path: Path) -> None:
    calls: list[str] = mutate.calls  # type: ignore[attr-defined]  # of the fixture
    assert [mutate(), mutate(), len(calls)] == [0, 0, 3]
    (tmp_path / "test_a.py").write_text("# changed")
    assert [mutate(), len(calls)] == [0, 6]


def test_processes_that_keep_a_server_end_one_by_one_and_with_their_parent() -> None:
    """A process inherits the pipes of those that were forked before it."""
    script = """
from types import SimpleNamespace
from tests.mutation.warm import Warm

def become(forks):
    forks.pytest_runtestloop(SimpleNamespace(items=[]))

first, second, *others = [Warm(become) for _ in range(4)]
first.close()
second.close()
print("closed", flush=True)
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )  # returns when no process has its output open any more
    assert run.stdout == "closed\n", run.stderr
