"""``auth.keys``: keys from code and scripts. What routes may do is in ``domain/permissions.py``."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from fastapi_keyauth.domain.audit import AuditPage
from fastapi_keyauth.domain.fields import KeyPatch, NewKey, validate_fields
from fastapi_keyauth.domain.keys import CreatedKey, EventPage, Key, KeyPage, Status, UsageHour
from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.keys.audit import KeyAudit
from fastapi_keyauth.keys.authority import TrustedCode
from fastapi_keyauth.keys.importer import Importer, ImportOutcome, Line, Progress
from fastapi_keyauth.keys.management import DEFAULT_OVERLAP, KeyManagement
from fastapi_keyauth.keys.queries import KeyQueries


class Keys:
    """``auth.keys``: create, read, change, rotate, revoke and import keys.

    Trusted code calls this: no caller's bounds apply, and neither does ``max_keys_per_owner``. Every method may raise
    ``StoreUnavailable``. Those that change a key raise ``ChangePending`` if the change is stored but not all workers
    could be notified (Redis is unavailable).

    Args:
        management: Changes keys.
        queries: Reads keys.
        importer: Imports keys.
        audit: Audits keys.
        authority: Authority on which keys are changed.
    """

    def __init__(
        self,
        management: KeyManagement,
        queries: KeyQueries,
        importer: Importer,
        audit: KeyAudit,
        authority: TrustedCode,
    ) -> None:
        self._management = management
        self._queries = queries
        self._importer = importer
        self._audit = audit
        self._authority = authority

    def acting_as(self, actor: str) -> "Keys":
        """Return the same keys, with another actor in the history of what is done to them.

        Added in 0.2.

        Args:
            actor: ``user:<id>``, ``cli:<operating-system user>`` or another name, at most 300 characters. Default:
                ``code``.
        """
        return Keys(self._management, self._queries, self._importer, self._audit, TrustedCode(actor))

    async def create(
        self,
        owner_id: str,
        name: str,
        scopes: Iterable[str] | None = None,
        environment: str | None = None,
        hourly_limit: int | None = None,
        allowed_origins: Iterable[str] = (),
        allowed_ips: Iterable[str] = (),
        expires_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        limits: Iterable[Limit | Mapping[str, Any]] | None = None,
        exempt_from_policy: bool = False,
    ) -> CreatedKey:
        """Create a key.

        Args:
            owner_id: The user or project it belongs to, 1 to 255 characters.
            name: 1 to 100 characters.
            scopes: Its scopes. Default: ``["*"]``, all but ``keys:*`` and ``admin``.
            environment: 1 to 16 of ``a-z0-9``. Default: the setting ``default_environment``.
            hourly_limit: Requests per hour. None: the setting ``default_hourly_limit``, whatever it is at the time.
            allowed_origins: Browser origins. Empty: no web page, except the service's own.
            allowed_ips: Addresses or CIDR networks. Empty: any.
            expires_at: An aware datetime in the future. None: by the settings ``default_key_ttl_s`` and
                ``max_key_ttl_s``; without them, never.
            metadata: Anything that JSON holds, at most 4 KiB.
            limits: Its limits, at most 8. Empty: none. None: ``hourly_limit``, or the defaults. Added in 0.2.
            exempt_from_policy: Whether the settings for lifetimes do not apply to it. Added in 0.2.

        Raises:
            InvalidField: If a value is invalid (a ValueError that names the field).
        """
        values: dict[str, Any] = {
            "owner_id": owner_id,
            "name": name,
            "scopes": None if scopes is None else _listed(scopes),
            "environment": environment,
            "hourly_limit": hourly_limit,
            "allowed_origins": _listed(allowed_origins),
            "allowed_ips": _listed(allowed_ips),
            "expires_at": expires_at,
            "metadata": {} if metadata is None else dict(metadata),
            "limits": None if limits is None else _listed(limits),
            "exempt_from_policy": exempt_from_policy,
        }
        return await self._management.create(validate_fields(NewKey, values), owner_id, self._authority)

    async def get(self, id: str, owner_id: str | None = None) -> Key:
        """Return one key; with ``owner_id`` only if it is that owner's.

        Raises:
            KeyNotFound: If the key does not exist.
        """
        return await self._queries.get(id, _owners(owner_id))

    async def usage(self, id: str, hours: int = 24, owner_id: str | None = None) -> list[UsageHour]:
        """Return the usage of a key in each of the last hours, oldest first, the current one last.

        The numbers are at most 10 s old.

        Args:
            id: The key.
            hours: 1 to 168, and no more than ``usage_hours_kept``.
            owner_id: Only if the key is this owner's.

        Raises:
            KeyNotFound: If the key does not exist.
            InvalidField: If ``hours`` is out of bounds.
        """
        return await self._queries.usage(id, hours, _owners(owner_id))

    async def events(
        self, id: str, cursor: str | None = None, limit: int = 50, owner_id: str | None = None
    ) -> EventPage:
        """Return the history of a key, newest first; with ``owner_id`` only if the key is that owner's.

        Raises:
            KeyNotFound: If the key does not exist.
            InvalidField: If the cursor is not a ``next_cursor``, or the limit is not from 1 to 200.
        """
        return await self._queries.events(id, cursor, limit, _owners(owner_id))

    async def list(
        self,
        owner_id: str | None = None,
        status: Status | None = None,
        q: str | None = None,
        unused_for_days: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
        include_revoked: bool = True,
        created_by: str | None = None,
    ) -> KeyPage:
        """Return a page of keys, newest first.

        Args:
            owner_id: Only this owner's keys.
            status: Only ``active``, ``disabled``, ``expired`` or ``revoked`` keys.
            q: Only keys whose name contains this, in any case, or the key with this id, hint or token.
            unused_for_days: Only keys not used for this many days, counted from the last use, creation or import,
                whichever is latest.
            cursor: ``next_cursor`` of the previous page.
            limit: 1 to 200.
            include_revoked: False leaves out revoked keys. Added in 0.2.
            created_by: Only keys that this actor created, such as ``user:<id>``. Added in 0.2.

        Raises:
            InvalidField: If the cursor is not a ``next_cursor``, a number is out of bounds, or the status does not
                exist.
        """
        owners = _owners(owner_id)
        return await self._queries.list(owners, status, q, unused_for_days, cursor, limit, include_revoked, created_by)

    async def audit(self, owner_id: str | None = None) -> AuditPage:
        """Return what a security review would ask about: findings about all active keys.

        Keys that never expire, were never used or not for 90 days, have no limit, hold ``*`` or ``admin``, have a
        secret that is older than a year or was imported, no list of addresses, or a creator who may no longer act for
        their owner (asked of ``owners_of``, with a session that has only the user's id). Added in 0.2.

        Args:
            owner_id: Only this owner's keys.
        """
        return await self._audit.find_all(_owners(owner_id))

    async def update(self, id: str, **fields: Any) -> Key:
        """Change fields of a key.

        Args:
            id: The key.
            fields: Any of name, enabled, expires_at, scopes, hourly_limit, allowed_origins, allowed_ips, metadata,
                limits and exempt_from_policy, and a ``reason`` for the history (the last three added in 0.2). An empty
                list allows any value, an empty list of limits any number of requests. None for ``expires_at`` is never,
                for ``hourly_limit`` and ``limits`` the default.

        Raises:
            InvalidField: If a value is invalid, or the field does not exist.
            KeyNotFound: If the key does not exist.
            KeyNotActive: If the key is revoked.
        """
        lists = {"scopes", "allowed_origins", "allowed_ips", "limits"}
        values = {name: _listed(value) if name in lists else value for name, value in fields.items()}
        return await self._management.patch(id, validate_fields(KeyPatch, values), self._authority)

    async def rotate(self, id: str, overlap: timedelta = DEFAULT_OVERLAP, reason: str | None = None) -> CreatedKey:
        """Give a key a new secret. The previous one works until the overlap ends, never past the key's own expiry.

        If two secrets overlap already, the older one ends immediately: at most two are live.

        Args:
            id: The key.
            overlap: 0 to 7 days. 0: the old secret is refused immediately.
            reason: Reason, for the history. Added in 0.2.

        Raises:
            KeyNotFound: If the key does not exist.
            KeyNotActive: If the key is disabled, expired or revoked.
            InvalidField: If the overlap is out of bounds.
            ChangePending: If the old secret had to end immediately and Redis is unavailable. Its ``token`` is the new
                one.
        """
        return await self._management.rotate(id, overlap, self._authority, reason=reason)

    async def revoke(self, id: str, reason: str | None = None, *, include_created: bool = False) -> None:
        """Revoke a key permanently, on all workers. Revoking it again changes nothing.

        Args:
            id: The key.
            reason: Reason, for the history. Added in 0.2.
            include_created: Whether to also revoke the keys that it created, those that they created, and so on: a
                thief may have created them. Added in 0.2.

        Raises:
            KeyNotFound: If the key does not exist.
        """
        await self._management.revoke(id, self._authority, reason=reason, include_created=include_created)

    async def import_keys(
        self, records: Iterable[Mapping[str, Any]], *, dry_run: bool = False, skip_existing: bool = False
    ) -> ImportOutcome:
        """Import keys from another system, by the hashes of their tokens: all of them or none.

        Args:
            records: Column to value; docs/reference/import.md has the columns.
            dry_run: Only check whether the import would succeed.
            skip_existing: Skip records whose token, or public part, belongs to a key already.

        Raises:
            ImportRefused: If records are invalid. It names them by their number, from 1.
        """
        lines = (Line(number, values) for number, values in enumerate(records, 1))
        return await self.import_lines(lines, dry_run=dry_run, skip_existing=skip_existing)

    async def import_lines(
        self, lines: Iterable[Line], *, dry_run: bool, skip_existing: bool, advance: Progress = lambda _: None
    ) -> ImportOutcome:
        """Import keys as ``import_keys`` does, from lines that have numbers already, and report progress."""
        return await self._importer.run(lines, dry_run, skip_existing, advance, self._authority.actor())


def _owners(owner_id: str | None) -> list[str] | None:
    return None if owner_id is None else [owner_id]


def _listed(values: Any) -> Any:
    """Return any collection as a list, except a string, which would fall into its characters."""
    return values if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
