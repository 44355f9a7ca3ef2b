"""Progress of what takes long: on stderr, and only where somebody watches."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fastapi_keyauth.cli.output import console


class Tracker:
    """One bar. Without a total it shows that something goes on."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, steps: int = 1) -> None:
        """So much more is done."""
        self._progress.advance(self._task, steps)

    def describe(self, text: str) -> None:
        """What is being done now."""
        self._progress.update(self._task, description=text)


@contextmanager
def tracking(text: str, total: int | None = None) -> Iterator[Tracker]:
    """A bar until the block ends; it then disappears."""
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        yield Tracker(progress, progress.add_task(text, total=total))
