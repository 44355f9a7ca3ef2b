"""Patches of keys: the columns to write, and the differences for the history."""

import json
from datetime import datetime
from typing import Any

from fastapi_keyauth.domain.keys import Actor
from fastapi_keyauth.domain.lifetimes import APPLIES, EXEMPT, KeyPolicy
from fastapi_keyauth.domain.limits import MAX_LIMITS, as_json
from fastapi_keyauth.domain.principals import ADMIN
from fastapi_keyauth.errors import InsufficientScope, InvalidField
from fastapi_keyauth.store.changes import KeyChange, StoredLimits


async def write_fields(
    change: KeyChange, fields: dict[str, Any], actor: Actor, policy: KeyPolicy, now: datetime
) -> None:
    """Write the fields of a patch that differ from what is stored.

    Args:
        change: The locked key.
        fields: Field to new value.
        actor: Who makes the change.
        policy: The policy for the lifetime of keys.
        now: The current time, UTC.

    Raises:
        InvalidField: If the key would have too many limits, or live longer than the policy permits.
        InsufficientScope: If the actor would enable a key that ``admin`` disabled.
    """
    fields = _merge_limits(fields, change.stored_limits)
    mark = _apply_policy(change, fields, policy, actor)
    # A limit of its own differs from the same limit by default.
    of_limits = {name: value for name, value in change.stored_limits._asdict().items() if name in fields}
    stored = {name: getattr(change.key, name) for name in fields} | of_limits
    values = {name: value for name, value in fields.items() if not _is_same(stored[name], value)}
    changes = {name: {"from": _as_json(stored[name]), "to": _as_json(value)} for name, value in values.items()}
    if mark != change.policy_mark:
        values["policy"] = mark
        changes["exempt_from_policy"] = {"from": change.policy_mark == EXEMPT, "to": mark == EXEMPT}
    if values.get("enabled"):
        values["enabled_at"] = now
    if "enabled" in fields:
        is_locked = _lock(change, actor, is_enabled=fields["enabled"])
        if is_locked != change.key.disabled_by_admin:
            values["disabled_by_admin"] = is_locked
    if values:
        await change.update(values, "updated", actor, changes)


def _merge_limits(fields: dict[str, Any], stored: StoredLimits) -> dict[str, Any]:
    """Return the fields to write, if ``hourly_limit`` and the list of limits concern each other.

    A list that is sent alone is all that the key has. A number that is sent alone takes the place of the limit that it
    is short for.
    """
    fields = dict(fields)
    if fields.get("limits") is not None:
        fields["limits"] = as_json(fields["limits"])
        fields.setdefault("hourly_limit", None)
    elif fields.get("hourly_limit") is not None and "limits" not in fields and stored.limits is not None:
        fields["limits"] = [limit for limit in stored.limits if limit["name"] != "hour"]
        if len(fields["limits"]) >= MAX_LIMITS:
            raise InvalidField("hourly_limit", f"there may be at most {MAX_LIMITS} limits")
    return fields


def _apply_policy(change: KeyChange, fields: dict[str, Any], policy: KeyPolicy, actor: Actor) -> str | None:
    """Check and complete a new expiry. Return the mark of the key from now on.

    ``admin`` decides how long an exempt key lives. Others may shorten that, or extend it as far as the policy permits.

    Raises:
        InvalidField: If the key would live longer than the policy permits.
    """
    is_exempt = fields.pop("exempt_from_policy", None)
    mark = change.policy_mark if is_exempt is None else EXEMPT if is_exempt else APPLIES
    if policy.applies_to(mark):
        if "expires_at" in fields:
            policy.check_change(fields["expires_at"], change.key.created_at)
        elif is_exempt is False:
            fields["expires_at"] = policy.shorten(change.key.expires_at, change.key.created_at)
    elif mark == EXEMPT and "expires_at" in fields and not _is_trusted(actor):
        before, after = change.key.expires_at, fields["expires_at"]
        if before is not None and (after is None or after > before):
            policy.check_change(after, change.key.created_at)
    return mark


def _lock(change: KeyChange, actor: Actor, *, is_enabled: bool) -> bool:
    """Return whether only ``admin`` may enable the key from now on.

    Raises:
        InsufficientScope: If the actor would enable a key that ``admin`` disabled.
    """
    if not is_enabled:
        return change.key.disabled_by_admin or actor.is_admin
    if change.key.disabled_by_admin and not _is_trusted(actor):
        raise InsufficientScope([ADMIN], reason="An administrator disabled this key")
    return False


def _is_trusted(actor: Actor) -> bool:
    """Return whether it is ``admin``, the command line, or code of the application."""
    return actor.owners is None or actor.is_admin


def _is_same(left: Any, right: Any) -> bool:
    """Return whether two values are the same as JSON: 1 and true are not."""
    return left == right and json.dumps(_as_json(left), sort_keys=True) == json.dumps(_as_json(right), sort_keys=True)


def _as_json(value: Any) -> Any:
    """Return a value as JSON represents it, for the history."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
