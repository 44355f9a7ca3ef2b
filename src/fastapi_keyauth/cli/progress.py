"""Progress of long operations: on stderr, and only on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastapi_keyauth.cli.output import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Tracker:
    """One progress bar. Without a total it only shows activity."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, steps: int = 1) -> None:
        """Add completed steps."""
        self._progress.advance(self._task, steps)

    def describe(self, text: str) -> None:
        """Set the text beside the bar."""
        self._progress.update(self._task, description=text)

    def restart(self, text: str) -> None:
        """Start the bar again at zero, for another phase with the same total."""
        self._progress.reset(self._task, description=text)


@contextmanager
def tracking(text: str, total: int | None = None) -> Iterator[Tracker]:
    """Show a progress bar until the block ends; then remove it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        yield Tracker(progress, progress.add_task(text, total=total))
