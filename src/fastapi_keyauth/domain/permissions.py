"""Who may do what to which key. No caller grants what it does not hold."""

from collections.abc import Iterable
from dataclasses import dataclass

from fastapi_keyauth.domain.keys import Actor, Key
from fastapi_keyauth.domain.principals import (
    ADMIN,
    ALL,
    KEYS_READ,
    KEYS_WRITE,
    KeyPrincipal,
    SessionPrincipal,
    is_reserved,
)
from fastapi_keyauth.errors import InsufficientScope


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a management route.

    Attributes:
        principal: the session or key.
        owner_id: whose keys it may manage (any owner's with ``admin``).
        is_admin: whether it holds ``admin``, which only a name gives.
        default_limit: the setting ``default_hourly_limit``.
    """

    principal: KeyPrincipal | SessionPrincipal
    owner_id: str
    is_admin: bool
    default_limit: int | None

    @classmethod
    def of(cls, principal: KeyPrincipal | SessionPrincipal, default_limit: int | None) -> "Caller":
        """The caller that a principal is."""
        owner_id = principal.owner_id if isinstance(principal, KeyPrincipal) else principal.user_id
        return cls(principal, owner_id, ADMIN in principal.scopes, default_limit)

    @property
    def visible_owner_id(self) -> str | None:
        """The owner whose keys it may see, None for all."""
        return None if self.is_admin else self.owner_id

    def actor(self, address: str | None) -> Actor:
        """The caller's name in the history."""
        if isinstance(self.principal, KeyPrincipal):
            return Actor(f"key:{self.principal.id}", address)
        return Actor(f"user:{self.principal.user_id}", address)

    def may_grant(self, scope: str) -> bool:
        """Whether the caller may give a key this scope."""
        if self.is_admin:
            return True
        if isinstance(self.principal, SessionPrincipal) and scope in (KEYS_READ, KEYS_WRITE):
            return True
        return self.principal.holds(scope)

    def check_scopes(self, scopes: Iterable[str], reason: str = "A key is given only what its maker holds") -> None:
        """Every scope must be one that the caller may grant.

        Raises:
            InsufficientScope: with those that are not.
        """
        missing = [scope for scope in scopes if not self.may_grant(scope)]
        if missing:
            raise InsufficientScope(missing, reason=reason)

    def grantable_by_default(self) -> list[str]:
        """The scopes of a key whose maker names none: what the caller may grant, nothing reserved."""
        if self.is_admin or ALL in self.principal.scopes:
            return [ALL]
        return sorted(scope for scope in self.principal.scopes if not is_reserved(scope))

    def check_limit(self, limit: int | None) -> None:
        """A limit above the default, or above the calling key's own, is for admin. None is the default.

        Raises:
            InsufficientScope: naming ``admin``.
        """
        if self.is_admin:
            return
        wanted = self.default_limit if limit is None else limit
        if _is_above(wanted, self.default_limit) or _is_above(wanted, self._own_limit()):
            most = min(bound for bound in (self.default_limit, self._own_limit()) if bound is not None)
            raise InsufficientScope([ADMIN], reason=f"Your keys may have an hourly_limit of {most} at most")

    def limit_by_default(self) -> int | None:
        """The limit to store for a key whose maker names none: the lower of default and own; None: the default."""
        own = self._own_limit()
        return own if not self.is_admin and _is_above(self.default_limit, own) else None

    def check_change(self, key: Key) -> None:
        """Only a key that the caller could have made may be changed or rotated by it.

        Raises:
            InsufficientScope: with the scopes that the key has and the caller may not grant.
        """
        self.check_scopes(key.scopes, "This key may do what you may not")
        if not self.is_admin and _is_above(key.hourly_limit, self._own_limit()):
            raise InsufficientScope([ADMIN], reason="The key's hourly_limit is above yours")

    def check_owner(self, owner_id: str | None) -> None:
        """Only admin names an owner.

        Raises:
            InsufficientScope: naming ``admin``.
        """
        if owner_id is not None and not self.is_admin:
            raise InsufficientScope([ADMIN], reason="Leave owner_id out: only admin names one")

    def _own_limit(self) -> int | None:
        """The calling key's cap; a session has none of its own."""
        return self.principal.hourly_limit if isinstance(self.principal, KeyPrincipal) else None


def _is_above(limit: int | None, bound: int | None) -> bool:
    """Whether one cap allows more than another; None is no cap."""
    if bound is None:
        return False
    return limit is None or limit > bound
