"""The file of an SQLite database, which may be deleted or replaced while it is open.

A deleted file lives on for whoever has it open: changes are answered, and lost when the last connection closes.
"""

from pathlib import Path

from sqlalchemy.engine import make_url

_Identity = tuple[int, int]
"""Device and inode."""


class SqliteFile:
    """Compares the file at the path with the one that was opened.

    Args:
        url: URL of a database. If it is not a file of SQLite, nothing is compared.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        name = parsed.database or ""
        is_file = (
            parsed.get_backend_name() == "sqlite" and name not in ("", ":memory:") and not name.startswith("file:")
        )
        self._path = Path(name) if is_file else None
        self._opened: _Identity | None = None

    def exists(self) -> bool:
        """Return whether the file exists. True if the database is not a file."""
        return self._path is None or self._path.exists()

    def record(self) -> None:
        """Record the file at the path as the one that was opened."""
        self._opened = None if self._path is None else self._identify(self._path)

    def is_replaced(self) -> bool:
        """Return whether another file is at the path.

        Raises:
            FileNotFoundError: If the file was deleted or moved.
        """
        return self._path is not None and self._opened is not None and self._identify(self._path) != self._opened

    @staticmethod
    def _identify(path: Path) -> _Identity:
        try:
            found = path.stat()
        except FileNotFoundError:
            raise FileNotFoundError("the database file was deleted or moved; put it back or restart") from None
        return found.st_dev, found.st_ino
