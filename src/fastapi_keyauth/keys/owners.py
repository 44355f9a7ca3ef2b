"""``auth.owners``: the owners of keys."""

import enum
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from typing import Any, Final, TypeVar

from fastapi_keyauth.domain.fields import OwnerFields, validate_fields
from fastapi_keyauth.domain.keys import Key
from fastapi_keyauth.domain.limit_sets import LimitSet, LimitState, limit_set
from fastapi_keyauth.domain.limits import Limit, as_json, check_units
from fastapi_keyauth.domain.owners import Erasure, Owner
from fastapi_keyauth.domain.text import check_owner_id
from fastapi_keyauth.domain.validation import check_reason
from fastapi_keyauth.errors import InvalidField
from fastapi_keyauth.keys.authority import ChangeAuthority, TrustedCode
from fastapi_keyauth.keys.outbox import Outbox
from fastapi_keyauth.keys.turns import Turns
from fastapi_keyauth.keys.usage_closing import DayCloser
from fastapi_keyauth.limiter import LimitCheck, Limiter
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store.owners import OwnerStore
from fastapi_keyauth.store.revocation import Pending

Result = TypeVar("Result")


class Unchanged(enum.Enum):
    """Marker of a field that stays unchanged."""

    UNCHANGED = enum.auto()


UNCHANGED: Final = Unchanged.UNCHANGED


def allow() -> None:
    """Check nothing."""


class Owners:
    """``auth.owners``: limit, suspend and erase the owners of keys. Added in 0.2.

    An owner is any string of the application; it exists as soon as it has a key. Every method may raise
    ``StoreUnavailable``. Those that change something raise ``ChangePending`` if the change is stored but not all
    workers could be notified (Redis is unavailable).

    Args:
        settings: The declared units.
        store: Store of the owners.
        outbox: Announces changes.
        turns: Orders changes.
        limiter: Returns what is left of limits.
        closer: Moves usage to the database before an owner is erased.
        now: Returns the current time, UTC.
        authority: Authority on which owners are changed.
        check: Called once the authority is confirmed. Raises to stop.
    """

    def __init__(
        self,
        settings: KeyAuthSettings,
        store: OwnerStore,
        outbox: Outbox,
        turns: Turns,
        limiter: Limiter,
        closer: DayCloser,
        now: Callable[[], datetime],
        authority: ChangeAuthority,
        check: Callable[[], None] = allow,
    ) -> None:
        self._parts = (settings, store, outbox, turns, limiter, closer, now)
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._turns = turns
        self._limiter = limiter
        self._closer = closer
        self._now = now
        self._authority = authority
        self._check = check

    def acting_as(self, actor: str) -> "Owners":
        """Return the same owners, with another actor in the history of what is done to their keys."""
        return Owners(*self._parts, TrustedCode(actor))

    def on_behalf_of(self, authority: ChangeAuthority, check: Callable[[], None] = allow) -> "Owners":
        """Return the same owners for the caller of a route."""
        return Owners(*self._parts, authority, check)

    async def get(self, owner_id: str) -> Owner:
        """Return an owner: what was set for it, what is left of its limits, and the number of its keys.

        Raises:
            InvalidField: If the id is not a string of 1 to 255 characters.
            LimiterUnavailable: If Redis is unavailable and ``on_limiter_outage`` is ``deny``.
        """
        check_owner_id(owner_id, "owner_id")
        async with self._turns.place(self._authority.turn):
            found, counts = await self._store.find(owner_id, self._now())
        states = await self._read_states("", limit_set((), found.limits), owner_id)
        states = tuple(state._replace(name=limit.name) for state, limit in zip(states, found.limits, strict=True))
        return Owner(owner_id, found.name, found.suspended_at, found.reason, states, counts)

    async def find_limit_states(self, key: Key, turn: str | None = None) -> tuple[LimitState, ...]:
        """Return every limit of a key and of its owner, and what is left of each. Charges nothing.

        Args:
            key: The key.
            turn: Owner whose turn the read takes. None: the application.

        Raises:
            LimiterUnavailable: If Redis is unavailable and ``on_limiter_outage`` is ``deny``.
        """
        async with self._turns.place(turn):
            owner, _ = await self._store.find(key.owner_id, self._now())
        return await self._read_states(key.id, limit_set(key.limits, owner.limits), key.owner_id)

    async def _read_states(self, key_id: str, limits: LimitSet, owner_id: str) -> tuple[LimitState, ...]:
        if not limits.all:
            return ()
        # Without any cost nothing is charged. There is no key without an id.
        check = LimitCheck(key_id, None, limits, (), age_s=0.0, is_fresh=True, owner_id=owner_id)
        answer = await self._limiter.check(check)
        return tuple(limits.describe(answer.states))

    async def names(self, owner_ids: Collection[str]) -> dict[str, str | None]:
        """Return the names of those owners for whom something was set."""
        async with self._turns.place(self._authority.turn):
            return await self._store.find_names(owner_ids)

    async def find_suspended(
        self, key_ids: Collection[str], owner_ids: Collection[str] | None, turn: str | None = None
    ) -> list[str]:
        """Return the suspended owners of these keys.

        Args:
            key_ids: The keys.
            owner_ids: Only owners among these. None: any.
            turn: Owner whose turn the read takes. None: the application.
        """
        async with self._turns.place(turn):
            return await self._store.find_suspended(key_ids, owner_ids)

    async def set(
        self,
        owner_id: str,
        *,
        limits: Iterable[Limit | dict[str, Any]] | Unchanged | None = UNCHANGED,
        name: str | Unchanged | None = UNCHANGED,
        reason: str | None = None,
    ) -> Owner:
        """Set limits or the name of an owner. Omitted fields stay unchanged.

        Args:
            owner_id: The owner.
            limits: At most 8 ``Limit`` objects or dictionaries, for all its keys together. Empty: no limits. None: the
                setting ``default_owner_limits``.
            name: A name for people, 1 to 100 characters. None: no name.
            reason: Reason, for the log.

        Raises:
            InvalidField: If a value is invalid.
        """
        check_owner_id(owner_id, "owner_id")
        reason = check_reason(reason)
        sent: dict[str, Any] = {} if name is UNCHANGED else {"name": name}
        if limits is not UNCHANGED:
            sent["limits"] = list(limits) if isinstance(limits, Iterable) and not isinstance(limits, str) else limits
        values = validate_fields(OwnerFields, sent).sent_fields()
        if values.get("limits") is not None:
            check_units(values["limits"], self._settings.units)
            values["limits"] = as_json(values["limits"])
        if values:
            await self._set(owner_id, values, "updated", reason)
        return await self.get(owner_id)

    async def suspend(self, owner_id: str, reason: str | None = None) -> Owner:
        """Refuse every key of an owner with ``owner_suspended``, on all workers, in one write.

        Keys that are created meanwhile are refused, too.

        Args:
            owner_id: The owner.
            reason: Reason, shown with the owner.
        """
        reason = check_reason(reason)
        await self._set(owner_id, {"suspended_at": self._now(), "reason": reason}, "suspended", reason)
        return await self.get(owner_id)

    async def resume(self, owner_id: str, reason: str | None = None) -> Owner:
        """End the suspension of an owner.

        Args:
            owner_id: The owner.
            reason: Reason, for the log.
        """
        await self._set(owner_id, {"suspended_at": None, "reason": None}, "resumed", check_reason(reason))
        return await self.get(owner_id)

    async def revoke_keys(
        self, owner_id: str | None = None, *, created_by: str | None = None, reason: str | None = None
    ) -> int:
        """Revoke all keys of an owner, or all that an actor created for whichever owner, on all workers.

        Args:
            owner_id: Only keys of this owner.
            created_by: Only keys that this actor created, such as ``user:<id>`` or ``key:<id>``.
            reason: Reason, for the history of each key.

        Returns:
            Number of keys that were revoked.

        Raises:
            InvalidField: If neither is given.
        """
        if owner_id is None and created_by is None:
            raise InvalidField("owner_id", "give an owner, or the actor that created the keys")
        if owner_id is not None:
            check_owner_id(owner_id, "owner_id")
        reason = check_reason(reason)

        async def commit() -> tuple[int, Pending]:
            return await self._store.revoke_keys(
                owner_id, created_by, self._now(), self._authority, self._check, reason
            )

        return await self._change(commit, is_revocation=True)

    async def erase(self, owner_id: str, reason: str | None = None) -> Erasure:
        """Revoke the keys and sessions of an owner and remove everything personal, permanently.

        Names, metadata, addresses, actors and the owner's id are removed or replaced, in the history and in closed days
        too. Usage stays, under the ids of keys that no longer name anybody. Erasing the owner again changes nothing.

        Args:
            owner_id: The owner.
            reason: Reason, for the log. The history keeps none.

        Returns:
            Numbers of rows that were changed.
        """
        check_owner_id(owner_id, "owner_id")
        reason = check_reason(reason)

        async def commit() -> tuple[Erasure, Pending]:
            await self._closer.move_counts_of(owner_id)
            return await self._store.erase(owner_id, self._now(), self._authority, self._check, reason)

        return await self._change(commit, is_revocation=True)

    async def _set(self, owner_id: str, values: dict[str, Any], what: str, reason: str | None = None) -> None:
        check_owner_id(owner_id, "owner_id")

        async def commit() -> tuple[None, Pending]:
            return None, await self._store.set(
                owner_id, values, what, self._now(), self._authority, self._check, reason
            )

        await self._change(commit, is_revocation=what == "suspended")

    async def _change(
        self, write: Callable[[], Awaitable[tuple[Result, Pending]]], *, is_revocation: bool = False
    ) -> Result:
        """Run a transaction when the caller's turn has come, and announce it."""

        async def commit() -> tuple[Result, Pending]:
            await self._authority.renew()
            return await write()

        async def publish(committed: tuple[Result, Pending]) -> Result:
            result, pending = committed
            await self._outbox.publish_owners(pending)
            return result

        return await self._turns.change(self._authority.turn, None, commit, publish, is_revocation=is_revocation)
