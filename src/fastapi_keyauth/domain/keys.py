"""Records of keys: for people, and for the checks of a request."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from fastapi_keyauth.domain.limit_sets import NO_LIMITS, LimitSet

if TYPE_CHECKING:  # Pydantic takes long to import, and the command line's help needs none of it
    from fastapi_keyauth.domain.limits import Limit

Status = Literal["active", "disabled", "expired", "revoked"]


def key_status(enabled: bool, expires_at: datetime | None, revoked_at: datetime | None, now: datetime) -> Status:
    """Return the status of a key: revoked before disabled, disabled before expired."""
    if revoked_at is not None:
        return "revoked"
    if not enabled:
        return "disabled"
    if expires_at is not None and expires_at <= now:
        return "expired"
    return "active"


@dataclass(frozen=True, slots=True)
class Secret:
    """A live secret of a key, without the secret. Times in UTC.

    Attributes:
        is_imported: Whether another system issued it. Added in 0.2.
    """

    hint: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    is_imported: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its owner sees it. Times in UTC.

    Attributes:
        hourly_limit: The number of the limit in force that is named ``hour``. None: no such limit.
        limits: All its limits in force. Added in 0.2.
        created_by: The actor that created it: ``user:<id>``, ``key:<id>``, ``cli:<operating-system user>`` or
            ``code``. None if that is not known. Added in 0.2.
        exempt_from_policy: Whether the settings for lifetimes do not apply to it. Added in 0.2.
        imported_at: When it was imported. None: it was not imported. Added in 0.2.
        disabled_by_admin: Whether ``admin`` disabled it: then only ``admin`` can enable it. Added in 0.2.
    """

    id: str
    name: str
    owner_id: str
    environment: str
    hint: str
    scopes: list[str]
    hourly_limit: int | None
    allowed_origins: list[str]
    allowed_ips: list[str]
    metadata: dict[str, Any]
    status: Status
    enabled: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    secrets: list[Secret]
    created_by: str | None = None
    limits: "tuple[Limit, ...]" = ()
    disabled_by_admin: bool = False
    imported_at: datetime | None = None
    exempt_from_policy: bool = False


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key that was just created or rotated: the only object that contains its token.

    Attributes:
        token: The whole API token. Show it once. It is never stored, and the repr does not contain it.
        key: The key.
    """

    token: str = field(repr=False)
    key: Key


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of keys, newest first; it can be iterated. ``next_cursor`` leads to the next page; None on the last."""

    items: list[Key]
    next_cursor: str | None

    def __iter__(self) -> Iterator[Key]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class KeyFilters:
    """Filters for a list of keys. None: any value.

    Attributes:
        owner_ids: Only keys of these owners.
        status: Only keys with this status.
        text: Only keys whose name contains this, in any case, or which have ``key_id``.
        key_id: Only this key, unless ``text`` finds others.
        created_by: Only keys that this actor created.
        unused_since: Only keys that were last used, imported and created by then.
        include_revoked: False leaves out revoked keys.
    """

    owner_ids: Collection[str] | None = None
    status: Status | None = None
    text: str | None = None
    key_id: str | None = None
    created_by: str | None = None
    unused_since: datetime | None = None
    include_revoked: bool = True


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """An event in the history of a key.

    Attributes:
        event: ``created``, ``updated``, ``rotated``, ``revoked`` or ``leaked``.
        actor: ``user:<id>``, ``key:<id>``, ``leak:<source>``, ``cli:<operating-system user>`` or ``code``.
        address: The client's address. None for code and the command line, and if ``admin`` acted and the reader
            does not hold it.
        at: Time of the event, UTC.
        reason: Reason, if one was given. Added in 0.2.
        changes: Field to ``{"from": ..., "to": ...}``. Of a rotation also ``overlap_s``, of ``leaked`` the source and
            the URL under ``leak``, of the creation of an imported key its ``scheme`` under ``imported``.
    """

    event: str
    actor: str
    address: str | None
    at: datetime
    changes: dict[str, Any]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events of a key, newest first."""

    items: list[KeyEvent]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class UsageHour:
    """Usage of a key in the clock hour that starts at ``hour`` (UTC).

    Attributes:
        hour: The start of the hour.
        admitted: Units of ``requests`` that were used.
        refused: Number of refused requests with the correct secret: over a limit, from an origin or address that is not
            allowed, or of a key that is inactive.
        units: Unit to the number of units that were used, of requests too. Added in 0.2.
    """

    hour: datetime
    admitted: int
    refused: int
    units: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """A key and the secret whose tag matches, as the checks of a request use them. Immutable, so it may be shared.

    ``metadata_json`` is "" if there is no metadata. It is text, so that every request gets a copy of its own at little
    cost. ``limits`` are those in force, of the key and of its owner.
    """

    id: str
    name: str
    owner_id: str
    environment: str
    scopes: frozenset[str]
    metadata_json: str
    hourly_limit: int | None
    allowed_origins: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    enabled: bool
    expires_at: datetime | None
    revoked_at: datetime | None
    secret_id: int
    secret_expires_at: datetime | None
    limits: LimitSet = NO_LIMITS
    is_owner_suspended: bool = False

    @property
    def has_conditions(self) -> bool:
        """Whether a request with the correct secret may be refused because of the row. False for most keys."""
        ends = self.expires_at is not None or self.secret_expires_at is not None
        lists = self.allowed_origins or self.allowed_ips
        inactive = self.revoked_at is not None or not self.enabled or self.is_owner_suspended
        return bool(ends or lists or inactive)

    def status(self, now: datetime) -> Status:
        """The status of key and secret together: a replaced secret whose overlap is over is expired."""
        status = key_status(self.enabled, self.expires_at, self.revoked_at, now)
        if status == "active" and self.secret_expires_at is not None and self.secret_expires_at <= now:
            return "expired"
        return status


CODE = "code"
"""Actor of changes that trusted code makes."""
COMMAND_LINE = "cli:"
"""Start of the actor of changes that the command line makes."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change, for the history.

    Attributes:
        name: ``user:<id>``, ``key:<id>``, ``leak:<source>``, ``cli:<operating-system user>`` or ``code``.
        address: The client's address. None for code and the command line.
        reason: Reason of the change, if one was given.
        is_admin: Whether it holds the scope ``admin``, or is the command line.
        owners: The owners whose keys the actor manages without ``admin``. None: code, which needs no permission.
    """

    name: str = CODE
    address: str | None = None
    reason: str | None = None
    is_admin: bool = False
    owners: frozenset[str] | None = None

    def needs_admin_for(self, owner_id: str) -> bool:
        """Return whether only ``admin`` permits the actor to change a key of this owner."""
        return self.owners is not None and owner_id not in self.owners
