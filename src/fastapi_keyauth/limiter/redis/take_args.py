"""Keys and arguments of one call of ``lua/take.lua``."""

from collections.abc import Callable, Sequence

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet
from fastapi_keyauth.limiter.leases.terms import LeaseAsk, Plan
from fastapi_keyauth.limiter.protocol import LimitCheck, usage_of
from fastapi_keyauth.limiter.redis.encoding import LimitEncoder, encode_usage
from fastapi_keyauth.limiter.redis.scripts import ScriptArgs

_HOURLY, _GRANT, _RETURN = 24, 48, 49
"""Parts of the number that tells what kind of question it is."""
HolderNames = Callable[[str, str | None], tuple[str, str]]
"""Returns the names of the hashes of a key and of its owner, from their IDs."""


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
        namespace: First part of every name in Redis.
        holder_names: Returns the names of the hashes of a key and of its owner.
        epoch: The epoch of the limiter. Generations of another one are invalid.

    Attributes:
        names: The keys.
    """

    __slots__ = (
        "_args",
        "_encoder",
        "_epoch",
        "_head",
        "_holder_names",
        "_limits",
        "_namespace",
        "_now_ms",
        "_positions",
        "names",
    )

    def __init__(
        self,
        head: Sequence[str | int],
        encoder: LimitEncoder,
        now_ms: int,
        namespace: str,
        holder_names: HolderNames,
        epoch: int,
    ) -> None:
        self.names: list[str] = []
        self._args: list[str | bytes | int] = []
        self._head = head
        self._encoder = encoder
        self._now_ms = now_ms
        self._namespace = namespace
        self._holder_names = holder_names
        self._epoch = f"{epoch}:"
        self._limits: list[str | bytes | int] = []
        self._positions: dict[tuple[LimitSet, Cost], int] = {}

    def add_returns(self, plan: Plan) -> None:
        """Add what returns leases, and what counts the usage of those that cannot be returned."""
        for lease in plan.returned:
            self._add_lease(lease.ask, lease.grant.stamp, _RETURN, lease.used, lease.left)
        for lease in plan.counted:
            self._add_lease(lease.ask, str(lease.grant.hour), _RETURN, lease.used, 0)

    def add_questions(self, questions: Sequence[LimitCheck]) -> None:
        """Add questions of requests."""
        epoch = self._epoch
        length = len(epoch)
        args = self._args
        for key_id, bucket, limits, cost, generation, age_s, is_fresh, owner_id, charge in questions:
            key, owner = self._holder_names(key_id, owner_id)
            self.names += (key if bucket is None else f"{self._namespace}:{{{bucket}}}", key, owner)
            # "-" differs from every generation.
            proof = generation[length:] if generation[:length] == epoch else "-"
            how = (2 if is_fresh else 0 if age_s is None else 1) + (0 if cost is None else 3)
            if bucket is not None:
                how += 6
            sent: str | int = ""
            if cost is ONE_REQUEST and charge is None and limits.one_hour:
                sent = limits.one_hour
                how += _HOURLY
            elif cost is not None:
                sent = self._place(limits, cost)
            args += (proof or "-", sent, how)
            if charge is not None:
                args[-1] = how + 12
                self.names.append(f"{owner}:{charge.id}")
                actual = None if charge.actual is None else limits.costs(charge.actual)
                settled = "" if actual is None else " ".join(map(str, actual)) or "-"  # "" means: not to be settled
                args += (charge.keep_s * 1000, settled, encode_usage(usage_of(cost or (), charge)))

    def add_asks(self, plan: Plan, lease_ms: int) -> None:
        """Add what asks for leases that last this long."""
        for ask in plan.asks:
            proof = ask.generation[len(self._epoch) :] if ask.generation.startswith(self._epoch) else "-"
            self._add_lease(ask, proof, _GRANT, ask.units, lease_ms)

    def finish(self) -> ScriptArgs:
        """Return keys and arguments."""
        return self.names, [*self._head, len(self._limits), *self._limits, *self._args]

    def _add_lease(self, ask: LeaseAsk, proof: str, kind: int, *numbers: int) -> None:
        key, owner = self._holder_names(ask.key_id, ask.owner_id)
        self.names += (key, key, owner)
        if ask.cost == ONE_REQUEST and ask.limits.one_hour:
            self._args += (proof, ask.limits.one_hour, kind + _HOURLY, *numbers)
        else:
            self._args += (proof, self._place(ask.limits, ask.cost), kind, *numbers)

    def _place(self, limits: LimitSet, cost: Cost) -> int:
        """Return the position of limits and a cost among the arguments. They are sent once."""
        position = self._positions.get((limits, cost))
        if position is None:
            position = self._positions[limits, cost] = len(self._head) + 2 + len(self._limits)
            self._limits += self._encoder.encode(limits, cost, self._now_ms).args
        return position
