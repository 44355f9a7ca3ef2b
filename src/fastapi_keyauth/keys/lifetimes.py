"""Periodic actions of the lifetime policy: disabling unused keys, and announcing the end of keys."""

import time
from collections.abc import Callable
from datetime import datetime

from fastapi_keyauth.domain.fields import KeyPatch
from fastapi_keyauth.domain.keys import Key
from fastapi_keyauth.domain.lifetimes import KeyPolicy
from fastapi_keyauth.errors import ChangePending, KeyNotActive, KeyNotFound, StoreUnavailable
from fastapi_keyauth.keys.authority import TrustedCode
from fastapi_keyauth.keys.management import KeyManagement
from fastapi_keyauth.store.lifetimes import LifetimeStore
from fastapi_keyauth.telemetry.observer import Observer

EVERY_S = 5.0
"""Seconds between two rounds. Keys that are due are handled within 10 s."""
ACTOR = "policy"
"""Actor of these changes in the history of keys."""


class _InUse(Exception):
    """The key was used or changed since it was found."""


class Lifetimes:
    """Disables unused keys and announces the end of keys. Every process runs it; one of them handles each key.

    Args:
        policy: The policy.
        store: Finds what is due.
        management: Disables keys.
        observer: Notified of unused and ending keys.
        sends_events: Whether there is a hook for events. Without one, no event is claimed.
        now: Returns the current time, UTC.
        monotonic: Returns seconds of a monotonic clock.
    """

    def __init__(
        self,
        policy: KeyPolicy,
        store: LifetimeStore,
        management: KeyManagement,
        observer: Observer,
        sends_events: bool,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._store = store
        self._management = management
        self._observer = observer
        self._sends_events = sends_events
        self._now = now
        self._monotonic = monotonic
        self._due_at = 0.0

    async def act_when_due(self) -> None:
        """Call ``act``, unless the last round began less than ``EVERY_S`` ago."""
        now = self._monotonic()
        if now >= self._due_at:
            self._due_at = now + EVERY_S
            await self.act()

    async def act(self) -> None:
        """Disable unused keys, and send the events about keys that end."""
        try:
            if self._policy.unused_after is not None:
                now = self._now()
                since = now - self._policy.unused_after
                for key_id in await self._store.find_unused(since, now):
                    await self._disable(key_id, since)
            if self._sends_events:
                await self._announce()
        except StoreUnavailable:
            return  # logged where it happens; the next round tries again

    async def _disable(self, key_id: str, since: datetime) -> None:
        days = 0 if self._policy.unused_after is None else self._policy.unused_after.days

        def check(key: Key) -> None:
            if not key.enabled or (key.last_used_at is not None and key.last_used_at > since):
                raise _InUse

        patch = KeyPatch(enabled=False, reason=f"unused for {days} days")
        try:
            key = await self._management.patch(key_id, patch, TrustedCode(ACTOR), check)
        except (_InUse, KeyNotFound, KeyNotActive):
            return
        except ChangePending:  # stored, and announced to the other workers once Redis is available
            key = None
        self._observer.report_unused(key_id, None if key is None else key.owner_id, days)

    async def _announce(self) -> None:
        now = self._now()
        endings = await self._store.find_endings(now)
        for ending in await self._store.claim(endings, now) if endings else ():
            self._observer.report_ending(ending.key_id, ending.owner_id, ending.expires_at, ending.days)
