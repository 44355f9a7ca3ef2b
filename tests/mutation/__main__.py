"""`make mutate ARGS="--module domain/permissions --limit 50"`: which changes does no test notice?

Results are kept in `.mutation/`, so that a run that was ended goes on where it was. A mutant is tested again if its
file or the tests of its target change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.mutation.explained import find_explained
from tests.mutation.mutants import Mutant, find_mutants
from tests.mutation.runner import MIN_TIMEOUT_S, PACKAGE, ROOT, Copy, copied_tree, judge, run_baseline
from tests.mutation.targets import TARGETS, Target

RESULTS = ROOT / ".mutation"
BASELINE_TIMEOUT_S = 900.0
_SLOWER = 5


def main() -> int:
    """Test the chosen mutants; return the exit status."""
    arguments = _parse()
    targets = [target for target in TARGETS if any(part in target.path for part in arguments.module or [""])]
    explained = find_explained()
    unexplained: list[Mutant] = []
    stale = set(explained)
    with ExitStack() as cleanup:
        copies = [cleanup.enter_context(copied_tree()) for _ in range(arguments.jobs)]
        for target in targets:
            mutants = find_mutants(ROOT / PACKAGE, target.path)
            stale -= {mutant.id for mutant in mutants}
            chosen = [mutant for mutant in mutants if mutant.id in (arguments.mutant or [mutant.id])]
            survivors = _run(target, _spread(chosen, arguments.limit), copies)
            unexplained += [mutant for mutant in survivors if mutant.id not in explained]
    for mutant in unexplained:
        print(f"SURVIVED {mutant.id}  src/fastapi_keyauth/{mutant.path}:{mutant.line}  {mutant.place}: {mutant.change}")
    if len(targets) == len(TARGETS) and stale:
        print(f"docs/explanation/mutation.md explains mutants that no longer exist: {', '.join(sorted(stale))}")
        return 1
    return 1 if unexplained else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutate ARGS=...", description=__doc__)
    parser.add_argument("--module", action="append", help="part of a target's path (repeatable); default: all targets")
    parser.add_argument("--limit", type=int, help="mutants of each target, evenly spread; default: all")
    parser.add_argument("--mutant", action="append", help="id of a mutant (repeatable); default: all mutants")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; default: one for each core")
    return parser.parse_args()


def _spread(mutants: list[Mutant], limit: int | None) -> list[Mutant]:
    if limit is None or limit >= len(mutants):
        return mutants
    return [mutants[number * len(mutants) // limit] for number in range(limit)]


def _run(target: Target, mutants: Sequence[Mutant], copies: Sequence[Copy]) -> list[Mutant]:
    """Test the mutants of one target that have no result yet; return the survivors."""
    results = _Results(target)
    waiting = [mutant for mutant in mutants if mutant.id not in results.verdicts]
    began = time.monotonic()
    if waiting:
        baseline = run_baseline(copies[0], target, BASELINE_TIMEOUT_S)
        if baseline.code != 0:
            print(baseline.output)
            raise SystemExit(f"{target.path}: its tests fail without a mutant")
        print(f"{target.path}: {len(waiting)} mutants, tests take {baseline.took_s:.0f} s", flush=True)
        timeout_s = max(MIN_TIMEOUT_S, baseline.took_s * _SLOWER)
        for mutant, verdict in judge(waiting, target, copies, timeout_s):
            results.add(mutant, verdict)
    survivors = [mutant for mutant in mutants if results.verdicts[mutant.id] == "survived"]
    took = f", {time.monotonic() - began:.0f} s" if waiting else ""
    print(f"{target.path}: {len(mutants) - len(survivors)} of {len(mutants)} killed{took}", flush=True)
    return survivors


class _Results:
    """The verdicts on one target's mutants, in a file of JSON lines."""

    def __init__(self, target: Target) -> None:
        state = hashlib.sha256(repr(target).encode())
        tests = [file for path in target.tests for file in ([ROOT / path] if path.endswith(".py") else _modules(path))]
        for file in (ROOT / PACKAGE / target.path, *tests):
            state.update(file.read_bytes())
        name = target.path.replace("/", "-")
        self._file = RESULTS / f"{name}-{state.hexdigest()[:12]}.jsonl"
        self.verdicts: dict[str, str] = {}
        if self._file.exists():
            lines = self._file.read_text("utf-8").splitlines()
            self.verdicts = {result["id"]: result["verdict"] for result in map(json.loads, lines)}

    def add(self, mutant: Mutant, verdict: str) -> None:
        """Store a verdict."""
        self.verdicts[mutant.id] = verdict
        facts = {"id": mutant.id, "verdict": verdict, "line": mutant.line, "place": mutant.place}
        RESULTS.mkdir(exist_ok=True)
        with self._file.open("a", encoding="utf-8") as results:
            results.write(json.dumps({**facts, "change": mutant.change}) + "\n")


def _modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


if __name__ == "__main__":
    sys.exit(main())
