"""Units that are reserved first and settled later, for costs that are known only afterwards."""

import secrets
from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.row_checks import find_inactive, refuse_limited
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.limit_sets import Cost, parse_cost
from fastapi_keyauth.domain.principals import KeyPrincipal
from fastapi_keyauth.errors import KeyNotFound
from fastapi_keyauth.limiter import LimitCheck, Verdict
from fastapi_keyauth.limiter.protocol import Charge
from fastapi_keyauth.store import KeyStore
from fastapi_keyauth.store.usage_buffer import UsageRecorder


class Hold:
    """Units that were reserved. Added in 0.2.

    Attributes:
        id: Its name in the limiter.
        reserved: Unit to number.
        is_settled: Whether it was settled by this object.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        usage: UsageRecorder,
        key: KeySnapshot,
        check: LimitCheck,
        units: Iterable[str],
    ) -> None:
        self._authenticator = authenticator
        self._usage = usage
        self._key = key
        self._check = check
        self._units = tuple(units)
        self.reserved: dict[str, int] = dict(check.cost or ())
        self.id = "" if check.charge is None else check.charge.id
        self.is_settled = False

    async def settle(self, **units: int) -> None:
        """Charge what was used instead of what was reserved, and count it as usage of this hour.

        The rest returns to the windows that it came from. An excess is charged as debt: nothing remains, and every
        request of the key (of the owner, if the limit is the owner's) is refused until the debt is covered, at the
        latest when the window ends. A second call changes nothing.

        Args:
            units: What was used of each unit. A unit that is left out was used as reserved.

        Raises:
            ValueError: If a unit is not declared, or a number is out of bounds.
            LimiterUnavailable: If the limiter is unavailable, also with the policy ``local``: only the limiter that
                charged the hold can settle it. The same call may be repeated; until then it stays charged in full.
        """
        actual = parse_cost({**self.reserved, **units}, self._units)
        if self.is_settled or self._check.charge is None:
            return
        charge = self._check.charge._replace(actual=actual)
        decision = await self._authenticator.limiter.check(self._check._replace(charge=charge))
        self.is_settled = True
        self._usage.charged(self._key, decision.hour, decision.usage)


class Reservation:
    """A reservation to be awaited or used in ``async with``, returned by ``auth.reserve``. Nothing is charged before.

    Added in 0.2.

    Raises:
        RateLimitExceeded: If a limit of the key or of its owner lacks room; nothing is charged.
        KeyRefusal: If the key was revoked, disabled or has expired meanwhile, or its owner is suspended.
        TemporarilyUnavailable: If the store or the limiter is unavailable.
    """

    def __init__(self, reservations: "Reservations", key: KeyPrincipal, cost: Cost) -> None:
        self._reservations = reservations
        self._key = key
        self._cost = cost

    def __await__(self) -> Generator[Any, None, Hold]:
        return self._reservations.take(self._key, self._cost).__await__()

    async def __aenter__(self) -> Hold:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: a hold that was not settled, because the client hung up for instance, stays charged in full."""


class Reservations:
    """Reserves units of the limits of keys and owners.

    Args:
        authenticator: Authenticator whose limiter is charged.
        store: Store of the keys.
        usage: Counts what is settled.
        units: The setting ``units``.
        ttl_s: The setting ``reservation_ttl_s``.
        now: Returns the current time, UTC.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        store: KeyStore,
        usage: UsageRecorder,
        units: tuple[str, ...],
        ttl_s: int,
        now: Callable[[], datetime],
    ) -> None:
        self._authenticator = authenticator
        self._store = store
        self._usage = usage
        self._units = units
        self._ttl_s = ttl_s
        self._now = now

    def reserve(self, key: KeyPrincipal, units: dict[str, int]) -> Reservation:
        """Return a reservation, which charges nothing until it is awaited.

        Raises:
            ValueError: If no unit is given, one is not declared, or a number is out of bounds.
        """
        if not units:
            raise ValueError("name what to reserve, such as tokens=4000")
        return Reservation(self, key, parse_cost(units, self._units))

    async def take(self, key: KeyPrincipal, cost: Cost) -> Hold:
        """Reserve units; see ``Reservation``."""
        row = await self._store.find_snapshot(key.id)
        if row is None:
            raise KeyNotFound
        finding = find_inactive(row, self._now())
        if finding is not None:
            raise finding
        # The name stays the same if the connection is lost and the call is sent again: it charges once.
        charge = Charge(secrets.token_hex(8), self._ttl_s, is_hold=True)
        check = LimitCheck(row.id, None, row.limits, cost, "", 0.0, True, row.owner_id, charge)
        decision = await self._authenticator.limiter.check(check)
        if decision.verdict is Verdict.LIMITED:
            raise refuse_limited(row, decision)
        return Hold(self._authenticator, self._usage, row, check, self._units)
