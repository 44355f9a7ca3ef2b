"""The folder of a reader who follows a page: its files, a running server, and a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.docs.pages import BASH, ROOT
from tests.helpers.thorough import IS_THOROUGH
from tests.helpers.warm_keyauth import warm_keyauth
from tests.helpers.workers import Workers

SHOWN_URL = "http://127.0.0.1:8000"
"""Address of the server on the pages; a test's own server has another port."""


class Folder:
    """A folder with these files, in which `uvicorn main:app` runs with these variables."""

    def __init__(
        self, place: Path, files: Mapping[str, str], variables: Mapping[str, str] | None = None, workers: int = 1
    ) -> None:
        sources = place / "sources"
        sources.mkdir()
        for name, text in files.items():
            (sources / name).write_text(text, "utf-8")
        python_path = os.pathsep.join([str(sources), str(ROOT), str(ROOT / "src")])
        commands = [] if IS_THOROUGH else [str(warm_keyauth())]
        self.variables = {
            **(variables or {}),
            "PYTHONPATH": python_path,
            "PATH": os.pathsep.join([*commands, str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        self.place = place / "served"
        self.server = Workers("main:app", self.place, workers, self.variables, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def run(self, commands: str) -> str:
        """Run these commands of a page in the folder, and return what they print."""
        shell = subprocess.run(
            [BASH, "-euo", "pipefail", "-c", commands.replace(SHOWN_URL, self.server.base_url)],
            cwd=self.place,
            env={**os.environ, **self.variables},
            text=True,
            capture_output=True,
            check=False,
        )
        assert shell.returncode == 0, shell.stderr
        return shell.stdout
