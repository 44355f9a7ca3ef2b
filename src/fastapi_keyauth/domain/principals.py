"""Principals: the callers that dependencies return, and their scopes."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.limit_sets import NO_LIMITS, LimitSet, LimitState

ALL = "*"
ADMIN = "admin"
KEYS_READ = "keys:read"
KEYS_WRITE = "keys:write"


def is_reserved(scope: str) -> bool:
    """Return whether ``*`` does not cover a scope: ``admin``, and all that start with ``keys:``."""
    return scope == ADMIN or scope.startswith("keys:")


def holds(held: frozenset[str], scope: str) -> bool:
    """Return whether ``held`` covers ``scope``: by name, or by ``*`` unless it is reserved."""
    return scope in held or (ALL in held and not is_reserved(scope))


class _OfKey:
    """The key of a principal of ``principal_of``. Not a field, so copies and representations do not contain it."""

    __slots__ = ("_key",)
    _key: KeySnapshot


@dataclass(frozen=True, slots=True)
class KeyPrincipal(_OfKey):
    """The API key that a request was admitted with.

    Attributes:
        id: The key's public id, 12 characters.
        name: The name that its owner gave it.
        owner_id: The project, team or user that it belongs to.
        environment: ``live``, or the environment that it was created for.
        scopes: Its scopes; ``*`` stands for all but ``keys:*`` and ``admin``.
        metadata: The application's own data about the key. A copy: changing it has no effect.
        expires_at: When it expires (UTC). None: never.
        hourly_limit: The number of its limit of requests per hour that is named ``hour``. None: no such limit.
        remaining: Requests left after this one, of the limit of requests with the smallest share left (of the key or of
            its owner). None: no limit of requests.
        reset_at: When that limit's window ends (UTC). None: no limit of requests.
    """

    id: str
    name: str
    owner_id: str
    environment: str
    scopes: frozenset[str]
    metadata: dict[str, Any]
    expires_at: datetime | None
    hourly_limit: int | None
    remaining: int | None
    reset_at: datetime | None
    _limits: LimitSet = field(default=NO_LIMITS, repr=False, compare=False)
    _states: Sequence[int] = field(default=(), repr=False, compare=False)

    @property
    def limits(self) -> list[LimitState]:
        """Every limit of the key and of its owner, with what was left after this request. Added in 0.2."""
        return list(self._limits.describe(self._states)) if self._states else []

    def holds(self, scope: str) -> bool:
        """Return whether this key holds ``scope``."""
        return holds(self.scopes, scope)

    if not TYPE_CHECKING:  # for type checkers, a principal has the fields above and no others

        def __getattr__(self, name: str) -> Any:
            """Compute a field that ``principal_of`` left empty. Python calls it only if the field has no value."""
            compute = _WHEN_READ.get(name)
            if compute is None:
                raise AttributeError(f"'KeyPrincipal' object has no attribute {name!r}")
            value = compute(self._key, self._states)
            object.__setattr__(self, name, value)
            return value


def _remaining(key: KeySnapshot, states: Sequence[int]) -> int | None:
    tightest = key.limits.find_tightest(states)
    return None if tightest is None else states[3 * tightest]


def _reset_at(key: KeySnapshot, states: Sequence[int]) -> datetime | None:
    tightest = key.limits.find_tightest(states)
    return None if tightest is None else _utc(states[3 * tightest + 2])


_WHEN_READ: dict[str, Callable[[KeySnapshot, Sequence[int]], Any]] = {
    "name": lambda key, _states: key.name,
    "environment": lambda key, _states: key.environment,
    "metadata": lambda key, _states: json.loads(key.metadata_json) if key.metadata_json else {},
    "expires_at": lambda key, _states: key.expires_at,
    "hourly_limit": lambda key, _states: key.hourly_limit,
    "remaining": _remaining,
    "reset_at": _reset_at,
    "_limits": lambda key, _states: key.limits,
}
"""Fields that are computed when they are first read: most routes read few of them."""


class _Draft(_OfKey):
    """A ``KeyPrincipal`` that is not frozen yet."""

    __slots__ = KeyPrincipal.__slots__


def principal_of(key: KeySnapshot, states: Sequence[int]) -> KeyPrincipal:
    """Return the principal of an admitted request.

    Args:
        key: The key.
        states: What was left of its limits after the request; see ``Decision``.
    """
    # A frozen dataclass sets each of its fields by a call, which takes five times as long. Python allows an object to
    # change to a class with the same slots.
    draft: Any = _Draft()
    draft.id = key.id
    draft.owner_id = key.owner_id
    draft.scopes = key.scopes
    draft._key = key
    draft._states = states
    draft.__class__ = KeyPrincipal
    principal: KeyPrincipal = draft
    return principal


@lru_cache(maxsize=64)
def _utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class SessionPrincipal:
    """The user whose session a request carries. Also what a session resolver returns.

    Attributes:
        user_id: The user.
        scopes: Its scopes, as any iterable of names. ``*`` (the default, as for ``auth.sessions.create``) stands for
            all but ``keys:*`` and ``admin``.
        expires_at: When it ends (an aware datetime). None: the resolver does not say. A past time is refused.
        key: The API key of the same request, if the route requires both.

    Raises:
        ValueError: If ``expires_at`` has no time zone.
    """

    user_id: str
    scopes: frozenset[str] = field(default=frozenset({ALL}))
    expires_at: datetime | None = None
    key: KeyPrincipal | None = None

    def __post_init__(self) -> None:
        scopes: Iterable[str] = self.scopes
        if not isinstance(scopes, frozenset):
            names = scopes.split() if isinstance(scopes, str) else scopes
            object.__setattr__(self, "scopes", frozenset(names))
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at has no time zone: datetime.fromtimestamp(seconds, UTC) makes one that has")

    def holds(self, scope: str) -> bool:
        """Return whether this session holds ``scope``."""
        return holds(self.scopes, scope)
