"""Keys and arguments of one call of ``lua/take.lua``."""

from collections.abc import Sequence

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet
from fastapi_keyauth.limiter.redis.encoding import LimitEncoder
from fastapi_keyauth.limiter.redis.scripts import ScriptArgs

HOURLY, GRANT, RETURN = 24, 48, 49
"""Parts of the number that tells what kind of question it is."""


class CallRecord:
    """The answer to a call that may be sent twice, stored in Redis, so that it is carried out once.

    Attributes:
        is_used: Whether the answer is stored.
        name: Its name in Redis. "": the call was not sent yet.
    """

    __slots__ = ("is_used", "name")

    def __init__(self, is_used: bool = False) -> None:
        self.is_used = is_used
        self.name = ""


class TakeArgs:
    """Keys and arguments, while they are put together.

    Args:
        head: The first arguments.
        encoder: Encodes limits.
        now_ms: Milliseconds since 1970.

    Attributes:
        names: The keys.
        args: The arguments of all questions.
    """

    __slots__ = ("_encoder", "_head", "_limits", "_now_ms", "_positions", "args", "names")

    def __init__(self, head: Sequence[str | int], encoder: LimitEncoder, now_ms: int) -> None:
        self.names: list[str] = []
        self.args: list[str | bytes | int] = []
        self._head = head
        self._encoder = encoder
        self._now_ms = now_ms
        self._limits: list[str | bytes | int] = []
        self._positions: dict[tuple[LimitSet, Cost], int] = {}

    def place(self, limits: LimitSet, cost: Cost) -> int:
        """Return the position of limits and a cost among the arguments. They are sent once."""
        position = self._positions.get((limits, cost))
        if position is None:
            position = self._positions[limits, cost] = len(self._head) + 2 + len(self._limits)
            self._limits += self._encoder.encode(limits, cost, self._now_ms).args
        return position

    def add_lease(
        self, holders: tuple[str, str], proof: str, limits: LimitSet, cost: Cost, kind: int, *numbers: int
    ) -> None:
        """Add a question that grants or returns a lease.

        Args:
            holders: Hashes of the key and of its owner.
            proof: The first argument.
            limits: The limits.
            cost: What one request costs.
            kind: ``GRANT`` or ``RETURN``.
            numbers: The last two arguments.
        """
        key, owner = holders
        self.names += (key, key, owner)
        if cost == ONE_REQUEST and limits.one_hour:
            self.args += (proof, limits.one_hour, kind + HOURLY, *numbers)
        else:
            self.args += (proof, self.place(limits, cost), kind, *numbers)

    def finish(self) -> ScriptArgs:
        """Return keys and arguments."""
        return self.names, [*self._head, len(self._limits), *self._limits, *self.args]
