"""Changes to keys, on the authority of code or of a caller of a management route.

Each change runs in this order: Argon2, if it needs a new secret; a turn (``turns.py``); the transaction, in which the
authority is confirmed before anything is written; the announcement to all workers (``outbox.py``).
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.domain.fields import KeyPatch, NewKey
from fastapi_keyauth.domain.keys import CreatedKey, Key
from fastapi_keyauth.domain.limits import as_json, check_units
from fastapi_keyauth.domain.pagination import check_key_id
from fastapi_keyauth.domain.text import check_owner_id
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret, secret_tag
from fastapi_keyauth.domain.validation import check_catalog, check_future, check_reason
from fastapi_keyauth.errors import ChangePending, InvalidField, KeyNotActive
from fastapi_keyauth.keys.authority import TRUSTED, ChangeAuthority, TrustedCode
from fastapi_keyauth.keys.outbox import Outbox
from fastapi_keyauth.keys.patches import write_fields
from fastapi_keyauth.keys.turns import Turns
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import KeyStore
from fastapi_keyauth.store.changes import KeyChange

MAX_OVERLAP = timedelta(days=7)
DEFAULT_OVERLAP = timedelta(days=1)
Check = Callable[[Key], None]
"""Checks the locked key before a change. Raises to stop it."""


def allow(_key: Key) -> None:
    """Check nothing."""


class KeyManagement:
    """Creates, changes, rotates and revokes keys.

    Args:
        settings: The defaults.
        store: Store of the keys.
        hasher: Hashes new secrets.
        outbox: Announces changes.
        turns: Orders changes.
        now: Returns the current time, UTC.

    Attributes:
        now: Returns the current time, UTC.
        policy: The policy for the lifetime of keys.
    """

    def __init__(
        self,
        settings: KeyAuthSettings,
        store: KeyStore,
        hasher: Hasher,
        outbox: Outbox,
        turns: Turns,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._store = store
        self._hasher = hasher
        self._outbox = outbox
        self._turns = turns
        self.now = now
        self.policy = settings.key_policy

    async def create(
        self,
        new: NewKey,
        owner_id: str,
        authority: ChangeAuthority = TRUSTED,
        max_keys: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> CreatedKey:
        """Create a key.

        Args:
            new: Fields of the key, complete except for the environment.
            owner_id: Owner of the key.
            authority: Authority on which the key is created.
            max_keys: Maximum number of keys of the owner. None: no maximum.
            check: Called once the authority is confirmed. Raises to stop.

        Raises:
            InvalidField: If the expiry is in the past or later than the policy permits, or a scope is not in the
                catalog.
            TooManyKeys: If the owner has ``max_keys`` already.
        """
        check_owner_id(owner_id, "owner_id")  # a session resolver may return anything
        check_future(new.find_expiry(self.now(), self.policy), self.now())
        scopes = ["*"] if new.scopes is None else new.scopes
        check_catalog(scopes, self._settings.scopes)
        check_units(new.limits or (), self._settings.units)
        if max_keys is not None:
            # Before Argon2: an owner who has the maximum must not keep it busy by asking for more.
            async with self._turns.place(authority.turn):
                await self._store.check_room(owner_id, max_keys)
        environment = new.environment or self._settings.default_environment
        key_id = new_key_id()
        token, secret = await self._new_secret(environment, key_id, authority.turn)

        async def commit() -> Key:
            now = self.now()
            values = {
                "id": key_id,
                "owner_id": owner_id,
                "scopes": scopes,
                "environment": environment,
                "expires_at": new.find_expiry(now, self.policy),
                "policy": self.policy.mark(new.exempt_from_policy),
                "enabled": True,
                "limits": None if new.limits is None else as_json(new.limits),
                **new.model_dump(include={"name", "hourly_limit", "allowed_origins", "allowed_ips", "metadata"}),
            }
            await authority.renew()
            return await self._store.create(values, secret, now, authority, max_keys, check)

        async def publish(key: Key) -> CreatedKey:
            return CreatedKey(token, key)

        return await self._turns.change(authority.turn, None, commit, publish)

    async def patch(
        self,
        id: str,
        patch: KeyPatch,
        authority: ChangeAuthority = TRUSTED,
        check: Check = allow,
        check_result: Check = allow,
    ) -> Key:
        """Change the fields of a key that ``patch`` has.

        Args:
            id: The key.
            patch: The fields.
            authority: Authority on which the key is changed.
            check: Checks the key before the change.
            check_result: Checks the key after the change. If it raises, the change is rolled back.

        Raises:
            InvalidField: If the expiry is in the past or later than the policy permits, or a scope is not in the
                catalog.
            KeyNotFound: If the key does not exist, or the caller may not see it.
            KeyNotActive: If the key is revoked.
            InsufficientScope: If ``admin`` disabled the key and another caller would enable it.
        """
        fields = patch.sent_fields()
        reason = check_reason(fields.pop("reason", None))
        check_future(fields.get("expires_at"), self.now())
        if "scopes" in fields:
            check_catalog(fields["scopes"], self._settings.scopes)
        check_units(fields.get("limits") or (), self._settings.units)

        async def commit() -> KeyChange:
            await authority.renew()
            async with self._store.change(check_key_id(id), self.now(), authority, authority.owner_ids) as change:
                check(change.key)
                if change.key.status == "revoked":
                    raise KeyNotActive("revoked")
                await write_fields(change, fields, authority.actor(reason), self.policy, self.now())
                if change.is_changed:
                    check_result(await change.read())
            return change

        async def publish(change: KeyChange) -> Key:
            # Also if nothing changed: this may be the second try of a change that could not be announced.
            await self._outbox.publish(id, change.key.owner_id, change.pending)
            return change.key

        return await self._turns.change(authority.turn, id, commit, publish)

    async def rotate(
        self,
        id: str,
        overlap: timedelta,
        authority: ChangeAuthority = TRUSTED,
        check: Check = allow,
        reason: str | None = None,
    ) -> CreatedKey:
        """Give a key a new secret; see ``Keys.rotate``.

        Raises:
            InvalidField: If the overlap is out of bounds.
            KeyNotFound: If the key does not exist, or the caller may not see it.
            KeyNotActive: If the key is disabled, expired or revoked.
            ChangePending: If a secret had to end immediately and not all workers could be notified. It has the new
                token.
        """
        if not timedelta(0) <= overlap <= MAX_OVERLAP:
            raise InvalidField("overlap_s", f"must be from 0 to {int(MAX_OVERLAP.total_seconds())}")
        check_reason(reason)

        def check_rotation(key: Key) -> None:
            check(key)
            if key.status != "active":
                raise KeyNotActive(key.status)

        # Argon2 before the transaction: no row stays locked while it runs.
        async with self._turns.place(authority.turn):
            before = await self._store.get(check_key_id(id), self.now(), authority.owner_ids)
        check_rotation(before)
        token, secret = await self._new_secret(before.environment, id, authority.turn)

        async def commit() -> tuple[KeyChange, bool]:
            await authority.renew()
            async with self._store.change(id, self.now(), authority, authority.owner_ids) as change:
                check_rotation(change.key)
                cuts_one_off = len(change.key.secrets) > 1
                await change.replace_secret(secret, overlap, authority.actor(reason))
            return change, cuts_one_off

        async def publish(committed: tuple[KeyChange, bool]) -> CreatedKey:
            change, cuts_one_off = committed
            try:
                await self._outbox.publish(id, change.key.owner_id, change.pending)
            except ChangePending as pending:
                # The token must reach its owner. With an overlap nothing is taken away before all workers have been
                # notified, unless there was a secret before the last.
                if cuts_one_off or overlap < timedelta(seconds=pending.holds_within_s):
                    raise ChangePending(pending.holds_within_s, token) from None
            return CreatedKey(token, change.key)

        return await self._turns.change(authority.turn, id, commit, publish)

    async def revoke(
        self,
        id: str,
        authority: ChangeAuthority = TRUSTED,
        check: Check = allow,
        reason: str | None = None,
        *,
        include_created: bool = False,
    ) -> Key:
        """Revoke a key. Revoking it again changes nothing.

        Args:
            id: The key.
            authority: Authority on which the key is changed.
            check: Checks the key.
            reason: Reason, for the history.
            include_created: Whether to also revoke the keys that it created, those that they created, and so on.

        Raises:
            KeyNotFound: If the key does not exist, or the caller may not see it.
        """
        check_reason(reason)

        async def commit() -> KeyChange:
            await authority.renew()
            now = self.now()
            revoked = self._store.change(check_key_id(id), now, authority, authority.owner_ids, is_urgent=True)
            async with revoked as change:
                check(change.key)
                if change.key.status != "revoked":
                    await change.update({"revoked_at": now}, "revoked", authority.actor(reason), {})
                if include_created:
                    await change.revoke_created(authority.actor(reason), authority.changeable_owner_ids)
            return change

        async def publish(change: KeyChange) -> Key:
            await self._outbox.publish_owners(change.pending_owners)
            # Also for one revoked before: that answer may have been lost before the others were notified.
            await self._outbox.publish(id, change.key.owner_id, change.pending)
            return change.key

        return await self._turns.change(authority.turn, id, commit, publish, is_revocation=True)

    async def record_leak(self, id: str, leak: dict[str, Any], actor_name: str, *, revoke: bool) -> None:
        """Record in the history of a key that one of its tokens was found, and revoke the key if requested.

        Another report of the same leak adds nothing.

        Raises:
            KeyNotFound: If the key does not exist.
        """
        authority = TrustedCode(actor_name)

        async def commit() -> KeyChange:
            now = self.now()
            async with self._store.change(check_key_id(id), now, authority, is_urgent=revoke) as change:
                if not await change.has_recorded("leaked", {"leak": leak}):
                    await change.record("leaked", authority.actor(), {"leak": leak})
                if revoke and change.key.status != "revoked":
                    await change.update({"revoked_at": now}, "revoked", authority.actor(), {})
            return change

        async def publish(change: KeyChange) -> None:
            await self._outbox.publish(id, change.key.owner_id, change.pending)

        await self._turns.change(authority.turn, id, commit, publish, is_revocation=revoke)

    async def _new_secret(self, environment: str, key_id: str, turn: str | None) -> tuple[str, dict[str, Any]]:
        secret = new_secret()
        token = format_token(self._settings.key_prefix, environment, key_id, secret)
        phc = await self._hasher.hash(secret, turn)
        return token, {"tag": secret_tag(secret), "hash": phc, "last4": token[-4:]}
