"""A dict of bounded size."""

from collections import OrderedDict
from typing import TypeVar

from typing_extensions import override

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedDict(OrderedDict[Key, Value]):
    """A dict that evicts its oldest entry when it grows beyond ``max_size``.

    Assigning a key makes its entry the newest, and so does ``move_to_end(key)``; call the latter on each read for a
    cache that evicts the least recently used entry. Reading by itself changes nothing.

    Args:
        max_size: Maximum number of entries.
    """

    # An ordered dict, since taking the first entry of a plain dict again and again scans all that were taken before.

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self._max_size = max_size

    @override
    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._max_size:
            self.popitem(last=False)
