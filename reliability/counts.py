"""The units in Redis, compared with the requests that the workers admitted.

The remaining units in responses cannot show this: they are approximate while workers have leases. But a unit is counted
in Redis before its request is admitted, with or without a lease, and only units that admitted nothing are returned. So
whatever happens to workers and connections, Redis has counted at least the admitted requests.

No upper bound is checked except the limit itself. More units may be counted than requests were admitted: those of
requests without a response, those of a call that was sent again over a new connection, and those of leases that were
not returned, because their worker was killed or had lost its connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from fastapi_keyauth.domain.limit_sets import LimitState
from reliability.ledger import HOUR_S, Ledger, OwnerRecord, Record

READ_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Counted:
    """Keys and owners with a limit, in the current hour.

    Attributes:
        units: Units in Redis.
        admitted: Admitted requests that Redis must still have counted.
        uncounted: Those that it has not.
    """

    units: int
    admitted: int
    uncounted: int


async def compare(ledger: Ledger, redis_url: str, database_url: str) -> Counted:
    """Read the units of all keys and owners with a limit, and compare them with the ledger.

    Call it when the load is over and the workers have stopped, so that they have returned their leases.
    """
    settings = KeyAuthSettings(
        _env_file=None,
        redis_url=redis_url,
        database_url=database_url,
        redis_timeout_s=READ_TIMEOUT_S,
        default_hourly_limit=None,
        on_limiter_outage="deny",  # A count of this process alone would say nothing.
    )
    async with KeyAuth(settings).connect() as auth:
        return await compare_on(auth, ledger)


async def compare_on(auth: KeyAuth, ledger: Ledger) -> Counted:
    """Do the same with a KeyAuth that is connected."""
    units = admitted = uncounted = 0
    for record in ledger.limited():
        state = await _read(auth, record)
        used, hour = state.limit - state.remaining, int(state.reset_at.timestamp()) // HOUR_S - 1
        units += used
        admitted += ledger.surely_counted(record, hour)
        uncounted += ledger.uncounted(record, hour, used)
    return Counted(units, admitted, uncounted)


async def _read(auth: KeyAuth, record: Record) -> LimitState:
    states: Iterable[LimitState]
    if isinstance(record, OwnerRecord):
        states = (await auth.owners.get(record.id)).limits
    else:
        states = await auth.owners.find_limit_states(await auth.keys.get(record.id))
    (state,) = states
    return state
