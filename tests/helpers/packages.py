"""The sdist and the wheel, and environments that contain nothing but a wheel and what it requires."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = CONFIGURATION["project"]
NAME: str = PROJECT["name"]
VERSION: str = PROJECT["version"]


def build(source: Path, folder: Path, *targets: str) -> list[Path]:
    """Build `targets` (sdist, wheel) of the project in `source`, and return the files in this order."""
    options = [option for target in targets for option in ("--target", target)]
    run([sys.executable, "-m", "hatchling", "build", *options, "--directory", str(folder)], cwd=source)
    return [next(folder.glob("*.tar.gz" if target == "sdist" else "*.whl")) for target in targets]


def unpack(sdist: Path, folder: Path) -> Path:
    """Extract an sdist and return its only folder."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


def run(command: Sequence[str], *, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command without this environment's variables, and check its exit code."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("KEYAUTH_", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


class CleanEnvironment:
    """A virtual environment with a wheel and the packages that the wheel requires, and no others.

    The packages are links to those of this environment, so nothing is downloaded.
    """

    def __init__(self, folder: Path, wheel: Path, extras: Sequence[str] = ()) -> None:
        venv.create(folder, symlinks=True)
        self.folder = folder
        self.python = folder / "bin" / "python"
        installer = ["uv", "pip", "install"] if shutil.which("uv") else [sys.executable, "-m", "pip", "install"]
        target = ["--python", str(self.python), "--no-deps", "--no-index"]
        if installer[0] != "uv":  # pip takes the interpreter before its command.
            installer, target = [*installer[:3], "--python", str(self.python), "install"], target[2:]
        run([*installer, *target, "--quiet", str(wheel)], cwd=folder)
        (packages,) = folder.glob("lib/python*/site-packages")
        for name in sorted(_find_required(packages, extras)):
            _link(name, packages)

    def script(self, name: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's scripts, and check its exit code."""
        return run([str(self.folder / "bin" / name), *arguments], cwd=self.folder, code=code)

    def execute(self, source: str) -> str:
        """Run Python code with the environment's interpreter, and return its standard output."""
        return run([str(self.python), "-c", source], cwd=self.folder).stdout


def _find_required(packages: Path, extras: Sequence[str]) -> set[str]:
    """Return the names of all packages that the installed wheel requires, directly or through others."""
    found: set[str] = set()
    waiting = [(NAME, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for requirement in _requirements_of(name, packages, wanted):
            required = canonicalize_name(requirement.name)
            found.add(required)
            waiting.append((required, frozenset(requirement.extras)))
    return found - {NAME}


def _requirements_of(name: str, packages: Path, extras: frozenset[str]) -> Iterator[Requirement]:
    if name == NAME:
        (metadata,) = packages.glob("fastapi_keyauth-*.dist-info")
        lines = list(distribution(NAME).at(metadata).requires or ())
    else:
        lines = list(distribution(name).requires or ())
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _link(name: str, packages: Path) -> None:
    """Link the top-level files and folders of a package of this environment."""
    for file in distribution(name).files or ():
        top = file.parts[0]
        if top in ("..", "__pycache__"):
            continue
        link = packages / top
        if not link.exists():
            link.symlink_to(Path(str(distribution(name).locate_file(top))))
