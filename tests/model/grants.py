"""Section 7, "No caller grants what it does not hold", as a plain program: the reasons to refuse a change."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from math import inf
from typing import Any, Literal, NamedTuple

from .model import Model
from .parts import Answer, Key, Session, covers


@dataclass(frozen=True)
class Change:
    """A change requested from the management routes."""

    kind: Literal["create", "patch", "rotate", "revoke"]
    target: Key | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class Caller:
    """The caller admitted at a management route: the session if one was sent, otherwise the key."""

    def __init__(self, model: Model, answer: Answer) -> None:
        self._model = model
        self._key = answer.key if answer.session is None else None
        caller: Key | Session | None = answer.session or answer.key
        assert caller is not None
        self.scopes = caller.scopes
        self.owner_id = caller.user_id if isinstance(caller, Session) else caller.owner_id
        self.is_admin = "admin" in caller.scopes

    def refusals(self, change: Change) -> set[str]:
        """Return every reason to refuse; the contract does not order them, except that a hidden key looks missing."""
        target, found = change.target, set()
        if target is not None:
            if not self.is_admin and target.owner_id != self.owner_id:
                return {"not_found"}
            if change.kind == "revoke":
                return set()
            if not all(map(self.may_grant, target.scopes)) or self._exceeds_own(self._model.limit_of(target)):
                found.add("insufficient_scope")
            if not self._binds(self._bounds_of(target)):
                found.add("insufficient_scope")
            status = target.status(self._model.now)
            if status == "revoked" or (change.kind == "rotate" and status != "active"):
                found.add("key_not_active")
        if not all(map(self.may_grant, change.fields.get("scopes", ()))):
            found.add("insufficient_scope")
        if "hourly_limit" in change.fields and self._exceeds(change.fields["hourly_limit"]):
            found.add("insufficient_scope")
        if change.kind in ("create", "patch") and not self._binds(self._bounds_after(change)):
            found.add("insufficient_scope")
        if change.kind == "create" and self._has_no_room():
            found.add("too_many_keys")
        return found

    def may_grant(self, scope: str) -> bool:
        """Return whether the caller may grant a scope: admin any, a session its own and `keys:*`, a key its own."""
        of_sessions = self._key is None and scope in ("keys:read", "keys:write")
        return self.is_admin or of_sessions or covers(self.scopes, scope)

    def default_scopes(self) -> frozenset[str]:
        """Return the scopes of a key for which none were named: all grantable ones that are not reserved."""
        if self.is_admin or "*" in self.scopes:
            return frozenset("*")
        return frozenset(scope for scope in self.scopes if scope != "admin" and not scope.startswith("keys:"))

    def default_limit(self) -> int | None:
        """Return the lower of the setting and the calling key's own limit."""
        default = self._model.rules.default_hourly_limit
        return self._own_limit() if not self.is_admin and self._exceeds_own(default) else None

    def inherited(self) -> dict[str, Any]:
        """Return the bounds that a new key takes from the calling key if the request names no others."""
        if self._key is None or self.is_admin:
            return {}
        ends_in_s = None if self._key.expires_at == inf else self._key.expires_at - self._model.now
        lists = {"allowed_origins": list(self._key.allowed_origins), "allowed_ips": list(self._key.allowed_ips)}
        return {"expires_at": ends_in_s, **lists}

    def _bounds_of(self, key: Key) -> Bounds:
        return Bounds(key.expires_at, key.allowed_origins, key.allowed_ips)

    def _bounds_after(self, change: Change) -> Bounds:
        fields = change.fields
        if change.target is None:
            named = {name: value for name, value in fields.items() if name != "expires_at" or value is not None}
            before = Bounds(inf, (), ())
            fields = {**self.inherited(), **named}
        else:
            before = self._bounds_of(change.target)
        ends_at = before.expires_at
        if "expires_at" in fields:
            ends_at = inf if fields["expires_at"] is None else self._model.now + fields["expires_at"]
        lists = (tuple(fields.get(name, getattr(before, name))) for name in ("allowed_origins", "allowed_ips"))
        return Bounds(ends_at, *lists)

    def _binds(self, bounds: Bounds) -> bool:
        """Return whether a key with these bounds is bound at least as tightly as the calling key."""
        if self._key is None or self.is_admin:
            return True
        own = self._bounds_of(self._key)
        ours, theirs = (tuple(map(ip_network, each.allowed_ips)) for each in (own, bounds))
        return (
            bounds.expires_at <= own.expires_at
            and (not own.allowed_origins or {*bounds.allowed_origins} <= {*own.allowed_origins} != set())
            and bool(bounds.allowed_origins or not own.allowed_origins)
            and bool(theirs or not ours)
            and (not ours or all(any(is_within(inner, outer) for outer in ours) for inner in theirs))
        )

    def _has_no_room(self) -> bool:
        held = [key for key in self._model.keys if key.owner_id == self.owner_id and not key.revoked]
        return len(held) >= self._model.rules.max_keys_per_owner

    def _own_limit(self) -> int | None:
        return None if self._key is None else self._model.limit_of(self._key)

    def _exceeds(self, limit: int | None) -> bool:
        default = self._model.rules.default_hourly_limit
        wanted = default if limit is None else limit
        return not self.is_admin and (is_above(wanted, default) or self._exceeds_own(wanted))

    def _exceeds_own(self, limit: int | None) -> bool:
        return not self.is_admin and is_above(limit, self._own_limit())


class Bounds(NamedTuple):
    """Bounds of a key: its expiry, and the origins and networks that may use it."""

    expires_at: float
    allowed_origins: tuple[str, ...]
    allowed_ips: tuple[str, ...]


def is_within(inner: Any, outer: Any) -> bool:
    """Return whether one network lies in another of the same version."""
    return inner.version == outer.version and bool(inner.subnet_of(outer))


def is_above(limit: int | None, bound: int | None) -> bool:
    """Return whether one hourly limit allows more than another; None means unlimited."""
    return bound is not None and (limit is None or limit > bound)
