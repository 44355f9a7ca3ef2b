"""A clock that several processes read and a test sets; it stands still in between."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_SECONDS = struct.Struct("<d")


class SharedClock:
    """Seconds since 1970, in the eight bytes of a file.

    Attributes:
        file: The file; created if it does not exist.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        file.touch()
        with file.open("r+b") as opened:
            if not file.stat().st_size:
                opened.truncate(_SECONDS.size)
            self._memory = mmap.mmap(opened.fileno(), _SECONDS.size)

    def __call__(self) -> float:
        """Return the time."""
        seconds: float = _SECONDS.unpack_from(self._memory)[0]
        return seconds

    def set(self, seconds: float) -> None:
        """Set the time for every process. The write is atomic on machines with eight-byte words."""
        _SECONDS.pack_into(self._memory, 0, seconds)
