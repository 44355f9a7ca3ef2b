"""What dependencies return: who is calling, and with what rights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi_keyauth.domain.limits import NO_LIMITS, LimitSet, LimitState

ALL = "*"
ADMIN = "admin"
KEYS_READ = "keys:read"
KEYS_WRITE = "keys:write"


def is_reserved(scope: str) -> bool:
    """Whether a scope is one that ``*`` does not cover: ``admin`` and all that start with ``keys:``."""
    return scope == ADMIN or scope.startswith("keys:")


def holds(held: frozenset[str], scope: str) -> bool:
    """Whether ``held`` covers ``scope``: by name, or by ``*`` unless it is reserved."""
    return scope in held or (ALL in held and not is_reserved(scope))


@dataclass(frozen=True, slots=True)
class KeyPrincipal:
    """The API key that a request was admitted with.

    Attributes:
        id: the key's public id, 12 characters.
        name: what its owner calls it.
        owner_id: the user or project it belongs to.
        environment: ``live`` or whatever it was made for.
        scopes: what it may do; ``*`` stands for all but ``keys:*`` and ``admin``.
        metadata: the application's own notes; a copy, so changing it changes nothing.
        expires_at: when it expires (UTC), or None.
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
        """Whether this key may do ``scope``."""
        return holds(self.scopes, scope)


@dataclass(slots=True)
class KeyPrincipalDraft:
    """The fields of a ``KeyPrincipal``, in its order, not frozen yet.

    A frozen dataclass sets each of its fields by a call, which takes five times as long, and one is made for every
    request.
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
    _limits: LimitSet
    _states: Sequence[int]

    def freeze(self) -> KeyPrincipal:
        """Itself, as a principal: Python lets an object change to a class with the same slots."""
        self.__class__ = KeyPrincipal  # type: ignore[assignment]  # what mypy cannot know is that it may
        return self  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class SessionPrincipal:
    """The user whose session a request carries. Also what a session resolver returns.

    Attributes:
        user_id: the user.
        scopes: what the session may do; ``*`` (the default, as for ``auth.sessions.create``) stands for all but
            ``keys:*`` and ``admin``. Any iterable of names is taken.
        expires_at: when it ends (an aware datetime), or None where the resolver does not say; a past one is refused.
        key: the API key of the same request, where the route wants both.

    Raises:
        ValueError: ``expires_at`` has no time zone.
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
        """Whether this session may do ``scope``."""
        return holds(self.scopes, scope)
