"""What may be done to keys: the operations, for code and scripts. Who may do it is in ``domain/permissions.py``."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.concurrency.uncancellable import uncancellable
from fastapi_keyauth.domain.keys import SYSTEM, Actor, CreatedKey, Key
from fastapi_keyauth.domain.pagination import check_key_id
from fastapi_keyauth.domain.text import check_owner_id
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret, secret_tag
from fastapi_keyauth.domain.validation import KeyPatch, NewKey, check_catalogue, check_future
from fastapi_keyauth.errors import ChangePending, InvalidField, KeyNotActive
from fastapi_keyauth.keys.importer import KeyImports
from fastapi_keyauth.keys.outbox import Outbox
from fastapi_keyauth.keys.queries import KeyQueries
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import KeyStore, UsageStore
from fastapi_keyauth.store.usage_buffer import UsageRecorder

MAX_OVERLAP = timedelta(days=7)
DEFAULT_OVERLAP = timedelta(days=1)
Check = Callable[[Key], None]
"""Looks at the locked key before a change and raises to stop it."""

_Model = TypeVar("_Model", bound=BaseModel)


class Keys(KeyImports, KeyQueries):
    """``auth.keys``: make, look at, change, rotate and revoke keys.

    Trusted code calls this: no caller's bounds apply, and ``max_keys_per_owner`` does not either. Every method may
    raise ``StoreUnavailable``; those that change a key raise ``ChangePending`` where the change is stored but other
    workers cannot be told at once (Redis out of reach).
    """

    def __init__(
        self,
        settings: KeyAuthSettings,
        store: KeyStore,
        usage_store: UsageStore,
        recorder: UsageRecorder,
        hasher: Hasher,
        outbox: Outbox,
        now: Callable[[], datetime],
    ) -> None:
        super().__init__(store, usage_store, recorder, now)
        self._settings = settings
        self._hasher = hasher
        self._outbox = outbox
        self.tasks = store.tasks

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
    ) -> CreatedKey:
        """Make a key.

        Args:
            owner_id: the user or project it belongs to, 1 to 255 characters.
            name: 1 to 100 characters.
            scopes: what it may do; ``["*"]`` where left out: all but ``keys:*`` and ``admin``.
            environment: 1 to 16 of ``a-z0-9``; the setting ``default_environment`` where left out.
            hourly_limit: requests per hour; None: the setting ``default_hourly_limit``, whatever it is at the time.
            allowed_origins: browser origins; none: any.
            allowed_ips: addresses or CIDR networks; none: any.
            expires_at: an aware datetime in the future; None: never.
            metadata: anything that JSON holds, at most 4 KiB.

        Raises:
            InvalidField: a value cannot be right (a ValueError that names the field).
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
        }
        new = _validated(NewKey, values)
        return await self.add(new, owner_id, new.scopes if new.scopes is not None else ["*"], new.hourly_limit)

    async def add(
        self,
        new: NewKey,
        owner_id: str,
        scopes: list[str],
        hourly_limit: int | None,
        actor: Actor = SYSTEM,
        max_keys: int | None = None,
    ) -> CreatedKey:
        """Make a key from checked fields, for an owner, with scopes and limit as decided.

        Raises:
            InvalidField: expiry in the past, or a scope that is not in the catalogue.
            TooManyKeys: the owner has ``max_keys`` already.
        """
        check_owner_id(owner_id, "owner_id")  # a session resolver may say anything
        now = self._now()
        expires_at = new.expires_at if new.expires_in_s is None else now + timedelta(seconds=new.expires_in_s)
        check_future(expires_at, now)
        check_catalogue(scopes, self._settings.scopes)
        if max_keys is not None:
            # Before Argon2: an owner with all the keys there may be must not keep it busy by asking for more.
            await self._store.check_room(owner_id, max_keys)
        environment = new.environment or self._settings.default_environment
        key_id = new_key_id()
        token, secret = await self._new_secret(environment, key_id, owner_id)
        values = {
            "id": key_id,
            "owner_id": owner_id,
            "scopes": scopes,
            "hourly_limit": hourly_limit,
            "environment": environment,
            "expires_at": expires_at,
            "enabled": True,
            **new.model_dump(include={"name", "allowed_origins", "allowed_ips", "metadata"}),
        }
        return CreatedKey(token, await self._store.create(values, secret, now, actor, max_keys))

    async def update(self, id: str, **fields: Any) -> Key:
        """Change fields of a key: name, enabled, expires_at, scopes, hourly_limit, allowed_origins, allowed_ips,
        metadata. An empty list allows any; None for ``expires_at`` is never, for ``hourly_limit`` the default.

        Raises:
            InvalidField: a value cannot be right, or there is no such field.
            KeyNotFound: there is none.
            KeyNotActive: it was revoked.
        """
        lists = {"scopes", "allowed_origins", "allowed_ips"}
        values = {name: _listed(value) if name in lists else value for name, value in fields.items()}
        return await self.patch(id, _validated(KeyPatch, values))

    @uncancellable
    async def patch(
        self, id: str, patch: KeyPatch, actor: Actor = SYSTEM, owner_id: str | None = None, check: Check | None = None
    ) -> Key:
        """Change a key as ``patch`` says. Same errors as ``update``, and those of ``check``."""
        now = self._now()
        wanted = patch.sent_fields()
        check_future(wanted.get("expires_at"), now)
        if "scopes" in wanted:
            check_catalogue(wanted["scopes"], self._settings.scopes)
        async with self._store.change(check_key_id(id), now, owner_id) as change:
            before = change.key
            if check is not None:
                check(before)
            if before.status == "revoked":
                raise KeyNotActive("revoked")
            stored = {name: getattr(before, name) for name in wanted}
            if "hourly_limit" in stored:  # a limit of its own is another thing than the same limit by default
                stored["hourly_limit"] = change.stored_limit
            changes = {
                name: {"from": _plain(stored[name]), "to": _plain(value)}
                for name, value in wanted.items()
                if not _is_same(stored[name], value)
            }
            if changes:
                await change.update({name: wanted[name] for name in changes}, "updated", actor, changes)
        # Also where nothing changed: this may be the second try of a change that could not be announced.
        await self._outbox.publish(id, change.pending)
        return change.key

    async def rotate(self, id: str, overlap: timedelta = DEFAULT_OVERLAP) -> CreatedKey:
        """Give a key a new secret; the one before works for ``overlap`` more, never past the key's own expiry.

        Of two secrets that overlap already, the older one ends at once: at most two are alive.

        Args:
            id: the key.
            overlap: 0 to 7 days; 0: the old secret is refused at once.

        Raises:
            KeyNotFound: there is none.
            KeyNotActive: it is disabled, expired or revoked.
            InvalidField: an overlap out of bounds.
            ChangePending: without overlap, and Redis out of reach; its ``token`` is the new one.
        """
        return await self.replace_secret(id, overlap)

    @uncancellable
    async def replace_secret(
        self,
        id: str,
        overlap: timedelta,
        actor: Actor = SYSTEM,
        owner_id: str | None = None,
        check: Check | None = None,
    ) -> CreatedKey:
        """As ``rotate``, after ``check``."""
        if not timedelta(0) <= overlap <= MAX_OVERLAP:
            raise InvalidField("overlap_s", f"must be from 0 to {int(MAX_OVERLAP.total_seconds())}")
        now = self._now()
        # Argon2 before the transaction: no row stays locked while it runs.
        before = await self._store.get(check_key_id(id), now, owner_id)
        self._check_rotation(before, check)
        token, secret = await self._new_secret(before.environment, id, before.owner_id)
        async with self._store.change(id, now, owner_id) as change:
            self._check_rotation(change.key, check)
            cuts_one_off = len(change.key.secrets) > 1
            await change.replace_secret(secret, overlap, actor)
        try:
            await self._outbox.publish(id, change.pending)
        except ChangePending as pending:
            # The token must reach its owner. With an overlap nothing is taken away before everybody has heard, unless
            # there was a secret before the last.
            if cuts_one_off or overlap < timedelta(seconds=pending.holds_within_s):
                raise ChangePending(pending.holds_within_s, token) from None
        return CreatedKey(token, change.key)

    @staticmethod
    def _check_rotation(key: Key, check: Check | None) -> None:
        if check is not None:
            check(key)
        if key.status != "active":
            raise KeyNotActive(key.status)

    @uncancellable
    async def revoke(self, id: str, actor: Actor = SYSTEM, owner_id: str | None = None) -> None:
        """Revoke a key, for good and at once. A second time changes nothing.

        Raises:
            KeyNotFound: there is none.
        """
        now = self._now()
        async with self._store.change(check_key_id(id), now, owner_id) as change:
            if change.key.status != "revoked":
                await change.update({"revoked_at": now}, "revoked", actor, {})
        # Also for one revoked before: that answer may have been lost before the others were told.
        await self._outbox.publish(id, change.pending)

    @uncancellable
    async def record_leak(self, id: str, leak: dict[str, Any], actor: Actor, *, revoke: bool) -> None:
        """Write into a key's history that a token of it was found, and revoke it where that is wanted.

        Raises:
            KeyNotFound: there is none.
        """
        now = self._now()
        async with self._store.change(check_key_id(id), now) as change:
            await change.record("leaked", actor, {"leak": leak})
            if revoke and change.key.status != "revoked":
                await change.update({"revoked_at": now}, "revoked", actor, {})
        await self._outbox.publish(id, change.pending)

    async def _new_secret(self, environment: str, key_id: str, owner_id: str) -> tuple[str, dict[str, Any]]:
        secret = new_secret()
        token = format_token(self._settings.key_prefix, environment, key_id, secret)
        phc = await self._hasher.hash(secret, owner_id)
        return token, {"tag": secret_tag(secret), "hash": phc, "last4": token[-4:]}


def _validated(model: type[_Model], values: dict[str, Any]) -> _Model:
    """Fields from code, by the rules for bodies."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidField(str(first["loc"][0]), first["msg"].removeprefix("Value error, ")) from None


def _listed(values: Any) -> Any:
    """Any collection but a string, which would fall into its characters, as a list."""
    return values if isinstance(values, str) or not isinstance(values, Iterable) else list(values)


def _is_same(left: Any, right: Any) -> bool:
    """Whether two values are the same as JSON: 1 and true are not."""
    return left == right and json.dumps(_plain(left), sort_keys=True) == json.dumps(_plain(right), sort_keys=True)


def _plain(value: Any) -> Any:
    """A value as JSON holds it, for the history."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
