"""Permissions of callers of management routes. No caller can grant more than it holds."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi_keyauth.domain.bounds import Bounds
from fastapi_keyauth.domain.fields import NewKey
from fastapi_keyauth.domain.keys import Actor, Key, KeySnapshot
from fastapi_keyauth.domain.lifetimes import KeyPolicy
from fastapi_keyauth.domain.limit_bounds import LimitBounds
from fastapi_keyauth.domain.limits import NO_RULES, LimitRules
from fastapi_keyauth.domain.principals import (
    ADMIN,
    ALL,
    KEYS_READ,
    KEYS_WRITE,
    KeyPrincipal,
    SessionPrincipal,
    is_reserved,
)
from fastapi_keyauth.errors import InsufficientScope, InvalidField, KeyNotFound

_BOUND_REASONS = {
    "environment": "A key manages only keys of its own environment",
    "expires_at": "A key manages only keys that expire no later than itself",
    "allowed_origins": "A key manages only keys whose allowed_origins are among its own",
    "allowed_ips": "A key manages only keys whose allowed_ips are among its own",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a management route.

    Attributes:
        principal: The session or key.
        owners: The owners whose keys the caller may manage without ``admin``, each with the caller's permissions:
            ``keys:read``, ``keys:write`` or both.
        is_admin: Whether the caller holds ``admin`` by name; ``*`` does not include it.
        default_limit: The setting ``default_hourly_limit``.
        bounds: The bounds of the calling key. None if the caller is a session.
        rules: Rules that turn the stored limits of a key into its effective limits.
        names_owners: Whether the caller may name one of its owners in a request.
    """

    principal: KeyPrincipal | SessionPrincipal
    owners: Mapping[str, Collection[str]]
    is_admin: bool
    default_limit: int | None
    bounds: Bounds | None = None
    names_owners: bool = False
    rules: LimitRules = NO_RULES

    @classmethod
    def of_key(
        cls,
        principal: KeyPrincipal,
        key: KeySnapshot,
        default_limit: int | None,
        rules: LimitRules = NO_RULES,
    ) -> "Caller":
        """Return the caller for an API key."""
        permissions = [scope for scope in (KEYS_READ, KEYS_WRITE) if principal.holds(scope)]
        owners = {principal.owner_id: permissions}
        is_admin = ADMIN in principal.scopes
        return cls(principal, owners, is_admin, default_limit, Bounds.of(key), rules=rules)

    @classmethod
    def of_session(
        cls,
        principal: SessionPrincipal,
        default_limit: int | None,
        owners: Mapping[str, Collection[str]] | None = None,
        rules: LimitRules = NO_RULES,
    ) -> "Caller":
        """Return the caller for a session.

        Args:
            principal: The session.
            default_limit: The setting ``default_hourly_limit``.
            owners: The owners that the session may act for. None: only its user.
            rules: Rules that turn the stored limits of a key into its effective limits.
        """
        may_name = owners is not None
        owners = {principal.user_id: (KEYS_READ, KEYS_WRITE)} if owners is None else owners
        is_admin = ADMIN in principal.scopes
        return cls(principal, owners, is_admin, default_limit, names_owners=may_name, rules=rules)

    @property
    def owner_id(self) -> str:
        """The owner of new keys, unless the request names one.

        Raises:
            InvalidField: If the caller acts for several owners, or for no owner.
        """
        own = self.principal.owner_id if isinstance(self.principal, KeyPrincipal) else self.principal.user_id
        if own in self.owners or self.is_admin:
            return own
        if len(self.owners) == 1:
            return next(iter(self.owners))
        problem = "must name one of the owners that you act for" if self.owners else "you act for no owner"
        raise InvalidField("owner_id", problem)

    @property
    def visible_owner_ids(self) -> Collection[str] | None:
        """The owners whose keys exist for the caller, whatever it may do with them. None: all."""
        return None if self.is_admin else self.owners

    @property
    def limit_bounds(self) -> LimitBounds:
        """The bounds on the limits that the caller may give to keys."""
        key = self.principal if isinstance(self.principal, KeyPrincipal) else None
        own_limit, own_limits = (None, ()) if key is None else (key.hourly_limit, key._limits.key)
        return LimitBounds(self.is_admin, self.default_limit, self.rules, own_limit, own_limits)

    def actor(self, address: str | None, reason: str | None = None) -> Actor:
        """Return the caller as the history records it."""
        if isinstance(self.principal, KeyPrincipal):
            name = f"key:{self.principal.id}"
        else:
            name = f"user:{self.principal.user_id}"
        return Actor(name, address, reason, self.is_admin, frozenset(self.owners))

    def choose_owner(self, owner_id: str | None, permission: str = KEYS_WRITE) -> str:
        """Return the owner whose keys a request concerns.

        Args:
            owner_id: The owner that the request names. None if it does not name one.
            permission: The permission that the request requires: ``keys:read`` or ``keys:write``.

        Raises:
            InsufficientScope: If the caller does not have this permission for the owner.
            InvalidField: If the request must name an owner.
        """
        chosen = self.owner_id if owner_id is None else owner_id
        if self.is_admin:
            return chosen
        if owner_id is not None and not self.names_owners:
            raise InsufficientScope([ADMIN], reason="Omit owner_id: only admin may name an owner")
        self._check_owner(chosen, permission)
        return chosen

    def choose_owners(self, owner_id: str | None) -> Collection[str] | None:
        """Return the owners whose keys to list. None: all.

        Raises:
            InsufficientScope, InvalidField: As for ``choose_owner``.
        """
        if self.is_admin and owner_id is None:
            return None
        return [self.choose_owner(owner_id, KEYS_READ)]

    def find_owners(self, permission: str) -> Collection[str] | None:
        """Return the owners for which the caller has a permission. None: all."""
        if self.is_admin:
            return None
        return [owner for owner, permissions in self.owners.items() if permission in permissions]

    def check_admin(self) -> None:
        """Check that the caller holds ``admin``.

        Raises:
            InsufficientScope: Naming ``admin``.
        """
        if not self.is_admin:
            raise InsufficientScope([ADMIN])

    def check_permission(self, owner_id: str, permission: str) -> None:
        """Check that the caller has a permission for the keys of an owner.

        Raises:
            KeyNotFound: If the caller may not even know that the keys exist.
            InsufficientScope: If the caller lacks this permission but has another one for the owner.
        """
        if self.is_admin:
            return
        if owner_id not in self.owners:
            raise KeyNotFound
        if permission not in self.owners[owner_id]:
            raise InsufficientScope([permission])

    def may_grant(self, scope: str) -> bool:
        """Return whether the caller may give this scope to a key."""
        if self.is_admin:
            return True
        if isinstance(self.principal, SessionPrincipal) and scope in (KEYS_READ, KEYS_WRITE):
            return True
        return self.principal.holds(scope)

    def check_scopes(self, scopes: Iterable[str], reason: str = "A key is given only what its creator holds") -> None:
        """Check that the caller may grant every scope.

        Raises:
            InsufficientScope: With the scopes that the caller may not grant.
        """
        missing = [scope for scope in scopes if not self.may_grant(scope)]
        if missing:
            raise InsufficientScope(missing, reason=reason)

    def grantable_by_default(self) -> list[str]:
        """Return the scopes of a new key without any: those that the caller may grant, except reserved ones.

        Raises:
            InvalidField: If the caller holds no such scope.
        """
        if self.is_admin or ALL in self.principal.scopes:
            return [ALL]
        scopes = sorted(scope for scope in self.principal.scopes if not is_reserved(scope))
        if not scopes:
            raise InvalidField("scopes", "you hold no scope that is granted by default; name the scopes of the key")
        return scopes

    def check_change(self, key: Key) -> None:
        """Check that the caller could have created this key, and may therefore change and rotate it.

        Raises:
            KeyNotFound, InsufficientScope: As for ``check_permission``.
            InsufficientScope: With the scopes of the key that the caller may not grant, or if the limits or bounds of
                the key are looser than those of the caller.
        """
        self.check_permission(key.owner_id, KEYS_WRITE)
        self.check_scopes(key.scopes, "This key may do what you may not")
        self.limit_bounds.check_existing(key)
        self.check_bounds(Bounds.of(key))

    def check_bounds(self, bounds: Bounds) -> None:
        """Check that the bounds of a key are at least as tight as those of the calling key.

        Raises:
            InsufficientScope: Naming ``admin``.
        """
        if self.is_admin or self.bounds is None:
            return
        excess = self.bounds.find_excess(bounds)
        if excess is not None:
            raise InsufficientScope([ADMIN], reason=_BOUND_REASONS[excess])

    def complete(self, new: NewKey, default_environment: str, now: datetime, policy: KeyPolicy) -> NewKey:
        """Return a new key with the owner, scopes, limits and bounds that follow from the caller.

        Args:
            new: The fields that were sent.
            default_environment: The setting ``default_environment``.
            now: The current time, UTC.
            policy: The policy for the lifetime of keys.

        Raises:
            InvalidField: If the request must name an owner or scopes, or the policy does not permit the expiry.
            InsufficientScope: If the caller may not create keys for the owner.
        """
        inherited = None if self.is_admin else self.bounds
        expires_at = new.find_expiry(now, policy)
        if inherited is not None and inherited.expires_at is not None and not new.has_expiry:
            expires_at = min(expires_at or inherited.expires_at, inherited.expires_at)
        completed: dict[str, Any] = {
            "owner_id": self.choose_owner(new.owner_id),
            "scopes": self.grantable_by_default() if new.scopes is None else new.scopes,
            "hourly_limit": self.limit_bounds.default_hourly() if new.hourly_limit is None else new.hourly_limit,
            "environment": new.environment or (default_environment if inherited is None else inherited.environment),
            "expires_at": expires_at,
            "expires_in_s": None,
        }
        if (
            new.limits is None
            and new.hourly_limit is None
            and (limits := self.limit_bounds.default_limits()) is not None
        ):
            completed |= {"limits": limits, "hourly_limit": None}
        elif new.limits is not None and new.hourly_limit is None:
            completed["hourly_limit"] = None  # the list replaces the hourly limit
        if inherited is not None:
            lists = {"allowed_origins": inherited.allowed_origins, "allowed_ips": inherited.allowed_ips}
            completed |= {name: [*values] for name, values in lists.items() if name not in new.model_fields_set}
        return new.model_copy(update=completed)

    def check_new(self, new: NewKey) -> None:
        """Check that the caller may create a key with these fields, which ``complete`` returned.

        Raises:
            InsufficientScope: If the caller may not create it.
        """
        self._check_owner(new.owner_id or "", KEYS_WRITE)
        if new.exempt_from_policy:
            self.check_admin()
        self.check_scopes(new.scopes or ())
        if new.limits is None:
            self.limit_bounds.check_hourly(new.hourly_limit)
        self.limit_bounds.check(self.rules.of_key(new.hourly_limit, new.limits))
        lists = (tuple(new.allowed_origins), tuple(new.allowed_ips))
        self.check_bounds(Bounds(new.environment or "", new.expires_at, *lists))

    def _check_owner(self, owner_id: str, permission: str) -> None:
        if not self.is_admin and permission not in self.owners.get(owner_id, ()):
            raise InsufficientScope([permission], reason="You may not do this for the owner")
