"""Runs the tests of one mutant, in a copy of the tree, in a forked process that has the third-party packages loaded."""

from __future__ import annotations

import compileall
import importlib
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import hypothesis
import pytest

from tests.mutation.mutants import Mutant
from tests.mutation.targets import Target
from tests.mutation.warm import CRASHED, Warm

ROOT = Path(__file__).parents[2]
PACKAGE = Path("src/fastapi_keyauth")
OURS = ("tests", "fastapi_keyauth", "example_app", "benchmarks", "reliability")
"""Packages that each forked process loads from its copy of the tree."""
PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout", "_hypothesis_pytestplugin")
"""Plugins that the tests use; loading the others that are installed would take half a second for each mutant."""
POLL_S = 0.02
MIN_TIMEOUT_S = 60.0
"""A mutant that loops for ever takes this long at least; then it counts as killed."""
TEST_TIMEOUT_S = 60
"""A single test that takes this long fails, so a mutant that waits for ever does not take the time of all tests."""

Verdict = Literal["killed", "timeout", "survived"]


@dataclass(frozen=True)
class Run:
    """One run of pytest.

    Attributes:
        code: Exit status of pytest. None if it was ended after the timeout.
        took_s: Duration in seconds.
        output: Output of pytest.
    """

    code: int | None
    took_s: float
    output: str

    @property
    def verdict(self) -> Verdict:
        """The verdict of the run on its mutant."""
        if self.code is None:
            return "timeout"
        return "survived" if self.code == 0 else "killed"

    @property
    def killer(self) -> str | None:
        """The test that failed, as pytest names it."""
        failed = re.search(r"^(?:FAILED|ERROR) (\S+?::[^\[\n]*?(?:\[.*\])?)(?: - .*)?$", self.output, re.MULTILINE)
        return failed[1] if failed else None


class Copy:
    """A copy of the tree, where one file at a time is mutated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "pytest.txt"
        self._modules = folder / "modules.txt"
        self._original = ""
        self._file = folder
        self._process = 0
        self._warm: tuple[Target, Warm] | None = None
        self._is_warm = False
        self._began = 0.0

    def start(self, target: Target, mutant: Mutant | None = None, first: Sequence[str] = ()) -> None:
        """Start a target's tests on the copy, with a mutant or as it is; some tests before the others."""
        if mutant is not None:
            self._file = self.folder / PACKAGE / mutant.path
            self._original = self._file.read_text("utf-8")
            self._file.write_text(mutant.source, "utf-8")
        self._began = time.monotonic()
        self._is_warm = target.keeps_server
        if self._is_warm:
            self._log.write_bytes(b"")
            self._warm_for(target).start(first)
            return
        self._process = os.fork()
        if self._process == 0:
            self._become_pytest(lambda: _run_pytest(target, _FirstTests(first)), writes_bytecode=mutant is None)

    def close(self) -> None:
        """End the process that was kept for the mutants of one target."""
        if self._warm is not None:
            self._warm[1].close()
            self._warm = None

    def _warm_for(self, target: Target) -> Warm:
        if self._warm is None or self._warm[0] != target:
            self.close()
            become = partial(self._become_warm, target)
            self._warm = target, Warm(become)
        return self._warm[1]

    def _become_warm(self, target: Target, plugin: object) -> None:
        self._become_pytest(lambda: _run_together(target, plugin), writes_bytecode=True)

    def poll(self, timeout_s: float) -> Run | None:
        """Return the run once it has ended, or was ended after the timeout. None while it is running."""
        code = self._poll_code()
        took_s = time.monotonic() - self._began
        if code is None and took_s < timeout_s:
            return None
        if code is None:
            self._end_run()
        if self._file is not self.folder:
            self._file.write_text(self._original, "utf-8")
            self._file = self.folder
        return Run(code, took_s, self._log.read_text("utf-8", errors="replace"))

    def _poll_code(self) -> int | None:
        if self._is_warm and self._warm is not None:
            return self._warm[1].poll()
        ended, status = os.waitpid(self._process, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None

    def _end_run(self) -> None:
        if self._is_warm and self._warm is not None:
            self._warm[1].end_run()
            return
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def loaded(self) -> list[str]:
        """Return the names of the modules that the last run without a mutant had loaded at its end."""
        return self._modules.read_text("utf-8").split()

    def _become_pytest(self, run: Callable[[], int], *, writes_bytecode: bool) -> None:
        code: int = CRASHED
        try:
            os.setsid()  # so that a run which hangs can be ended with all that it started
            output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.chdir(self.folder)
            source = str(self.folder / "src")
            os.environ |= {
                "PYTHONPATH": source,
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "HYPOTHESIS_STORAGE_DIRECTORY": "/dev/null",
            }
            # Tests are the same for all mutants: the run without one stores them, with pytest's asserts.
            sys.dont_write_bytecode = not writes_bytecode
            sys.path[:] = [
                source,
                str(self.folder),
                *(path for path in sys.path if Path(path or ".").resolve() != ROOT),
            ]
            for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
                del sys.modules[name]
            # The first failing example is enough; to find the smallest one may take minutes.
            phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
            hypothesis.settings.register_profile("mutants", phases=phases)
            hypothesis.settings.load_profile("mutants")
            code = run()
            if writes_bytecode:
                self._modules.write_text("\n".join(list(sys.modules)), "utf-8")
        except BaseException:  # whatever it is, this process must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def run_baseline(copy: Copy, target: Target, timeout_s: float) -> Run:
    """Run a target's tests without a mutant, and load the third-party modules that they need into this process."""
    copy.start(target)
    while (run := copy.poll(timeout_s)) is None:
        time.sleep(POLL_S)
    if run.code == 0:
        for name in () if target.keeps_server else copy.loaded():
            if name.split(".")[0] not in OURS and name not in sys.modules:
                with suppress(Exception):  # a module that only others may import; each mutant's process loads it
                    importlib.import_module(name)
    return run


def judge(
    mutants: Sequence[Mutant], target: Target, copies: Sequence[Copy], timeout_s: float
) -> Iterator[tuple[Mutant, Verdict]]:
    """Run a target's tests against each mutant, one mutant in each copy at a time; yield the verdicts.

    The tests that killed earlier mutants run first: most often one of them also kills the next.
    """
    waiting = list(reversed(mutants))
    killers: list[str] = []
    running: dict[Copy, Mutant] = {}
    while waiting or running:
        for copy in copies:
            if copy not in running and waiting:
                running[copy] = waiting.pop()
                copy.start(target, running[copy], killers)
        for copy, mutant in list(running.items()):
            if (run := copy.poll(timeout_s)) is not None:
                del running[copy]
                if run.killer is not None:
                    killers = [run.killer, *(killer for killer in killers if killer != run.killer)]
                yield mutant, run.verdict
        time.sleep(POLL_S)


@contextmanager
def copied_tree() -> Iterator[Copy]:
    """Yield a copy of all files that git tracks, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="keyauth-mutants-") as folder:
        listed = subprocess.run(
            ["git", "ls-files", "-z"],  # noqa: S607  # whichever git the developer uses
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        )
        for name in listed.stdout.split("\0"):
            if name and (ROOT / name).is_file():
                goal = Path(folder, name)
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, goal)
        # Bytecode that Python uses only for the very source that it was compiled from: a mutant may have the size and
        # the time of the file before it.
        checked = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(Path(folder, "src"), quiet=2, invalidation_mode=checked)
        copy = Copy(Path(folder))
        yield copy
        copy.close()


class _FirstTests:
    """A plugin of pytest that moves some tests to the front."""

    def __init__(self, names: Sequence[str]) -> None:
        self._place = {name: number for number, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sort the tests; those without a place keep their order."""
        items.sort(key=lambda item: self._place.get(item.nodeid, len(self._place)))


def _run_pytest(target: Target, plugin: object) -> int:
    """Run the tests of one mutant up to the first failure, and return pytest's exit status."""
    for paths in filter(None, (target.units, target.others)):
        code = int(pytest.main([*_options(target), *paths], plugins=[plugin]))
        if code:
            return code
    return 0


def _run_together(target: Target, plugin: object) -> int:
    """Run all tests of one mutant in one session."""
    return int(pytest.main([*_options(target), *target.tests], plugins=[plugin]))


def _options(target: Target) -> list[str]:
    # Plugins that a package above has loaded are not rewritten; their asserts are not the tests'.
    options = ["-x", "-q", "--tb=native", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options.append(f"--timeout={TEST_TIMEOUT_S}")
    for plugin in PLUGINS:
        options += ["-p", plugin]
    if target.keyword:
        options += ["-k", target.keyword]
    return options
