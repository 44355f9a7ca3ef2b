"""Audits of keys."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime

from fastapi_keyauth.domain.audit import AuditFinding, AuditPage, find_problems
from fastapi_keyauth.domain.keys import Key
from fastapi_keyauth.domain.pagination import MAX_PAGE
from fastapi_keyauth.domain.principals import SessionPrincipal
from fastapi_keyauth.keys.queries import KeyQueries, Owners
from fastapi_keyauth.store import OwnerStore

_USER = "user:"


class KeyAudit:
    """Finds weaknesses that a security review would report.

    Args:
        queries: Reads keys.
        owners: Reads the limits of owners.
        owners_of: See ``KeyAuth``. None: creators are not checked.
        now: Returns the current time, UTC.
    """

    def __init__(
        self,
        queries: KeyQueries,
        owners: OwnerStore,
        owners_of: Callable[[SessionPrincipal], Awaitable[Mapping[str, Collection[str]]]] | None,
        now: Callable[[], datetime],
    ) -> None:
        self._queries = queries
        self._owners = owners
        self._owners_of = owners_of
        self._now = now

    async def find_page(
        self, owner_ids: Owners = None, cursor: str | None = None, limit: int = MAX_PAGE, turn: str | None = None
    ) -> AuditPage:
        """Return the findings of one page of active keys, newest first.

        Args:
            owner_ids: Only keys of these owners. None: all.
            cursor: ``next_cursor`` of the previous page.
            limit: Maximum number of keys, from 1 to 200.
            turn: Owner whose turn the read takes. None: the application.

        Raises:
            InvalidField: If the cursor is not a ``next_cursor``, or the limit is out of bounds.
        """
        page = await self._queries.list(owner_ids, "active", cursor=cursor, limit=limit, turn=turn)
        now = self._now()
        limited = await self._owners.find_limited({key.owner_id for key in page if not key.limits})
        former_members = await self._find_former_members(page.items)
        found = [
            AuditFinding(kind, key.id, key.owner_id, detail)
            for key in page
            for kind, detail in (
                *find_problems(key, now, owner_has_limits=key.owner_id in limited),
                *((("creator_not_member", former_members[key.id]),) if key.id in former_members else ()),
            )
        ]
        return AuditPage(found, page.next_cursor)

    async def find_all(self, owner_ids: Owners = None) -> AuditPage:
        """Return the findings of all active keys."""
        found: list[AuditFinding] = []
        cursor: str | None = None
        while True:
            page = await self.find_page(owner_ids, cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return AuditPage(found, None)

    async def _find_former_members(self, keys: list[Key]) -> dict[str, str]:
        """Return the detail of each key whose creator may no longer act for its owner, by key id."""
        if self._owners_of is None:
            return {}
        owners: dict[str, Collection[str] | None] = {}
        found = {}
        for key in keys:
            creator = key.created_by or ""
            if creator.startswith(_USER):
                user_id = creator.removeprefix(_USER)
                if user_id not in owners:
                    owners[user_id] = await self._owners_of_user(user_id)
                may_act_for = owners[user_id]
                if may_act_for is None:
                    found[key.id] = (
                        f"Whether its creator, {creator}, may act for its owner is unknown: owners_of failed."
                    )
                elif key.owner_id not in may_act_for:
                    found[key.id] = f"Its creator, {creator}, may no longer act for its owner."
        return found

    async def _owners_of_user(self, user_id: str) -> Collection[str] | None:
        """Return the owners that a user may act for. None if the application cannot say."""
        try:
            return None if self._owners_of is None else await self._owners_of(SessionPrincipal(user_id))
        except Exception:  # the application's own code, which may not expect a user who was deleted
            return None
