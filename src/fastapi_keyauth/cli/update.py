"""``keyauth keys update``, ``disable`` and ``enable``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastapi_keyauth.cli.output import Json, moment, print_json, say
from fastapi_keyauth.cli.parameters import KeyId, Reason, parse_duration, parse_moment, parse_object
from fastapi_keyauth.cli.records import describe
from fastapi_keyauth.cli.runner import run_command

if TYPE_CHECKING:
    from fastapi_keyauth.domain.keys import Key
    from fastapi_keyauth.keyauth import KeyAuth


def update(
    id: KeyId,
    name: Annotated[str | None, typer.Option(help="Name: where the key is used.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Scope (repeatable). Replaces all current scopes.")] = None,
    hourly_limit: Annotated[int | None, typer.Option(help="Requests per hour.")] = None,
    default_limit: Annotated[bool, typer.Option("--default-limit", help="No limit of its own: the default.")] = False,
    origin: Annotated[
        list[str] | None, typer.Option(help="Allowed browser origin (repeatable). Replaces all current origins.")
    ] = None,
    any_origin: Annotated[bool, typer.Option("--any-origin", help="No origins: no web page.")] = False,
    ip: Annotated[
        list[str] | None,
        typer.Option(help="Allowed address or network in CIDR form (repeatable). Replaces all current ones."),
    ] = None,
    any_ip: Annotated[bool, typer.Option("--any-ip", help="Any address.")] = False,
    expires_in: Annotated[
        timedelta | None, typer.Option(parser=parse_duration, metavar="30d", help="Lifetime from now.")
    ] = None,
    expires_at: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar="TIME", help="Expiry in UTC: 2027-01-31.")
    ] = None,
    never_expires: Annotated[bool, typer.Option("--never-expires", help="No expiry.")] = False,
    metadata: Annotated[
        dict[str, Any] | None,
        typer.Option(parser=parse_object, metavar="JSON", help="Metadata. Replaces all current metadata."),
    ] = None,
    exempt: Annotated[
        bool | None,
        typer.Option(
            "--exempt-from-policy/--not-exempt-from-policy", help="Whether the settings for lifetimes do not apply."
        ),
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Update fields of a key. Fields that are not named stay unchanged; a list is replaced as a whole."""
    fields: dict[str, Any] = {}
    if name is not None:
        fields["name"] = name
    if scope:
        fields["scopes"] = scope
    if metadata is not None:
        fields["metadata"] = metadata
    if exempt is not None:
        fields["exempt_from_policy"] = exempt
    soon = None if expires_in is None else datetime.now(UTC) + expires_in
    at = _one_of({"--expires-in": soon, "--expires-at": expires_at, "--never-expires": never_expires or None})
    ways: dict[str, tuple[Any, list[str] | None]] = {
        "expires_at": (at, None),
        "hourly_limit": (_one_of({"--hourly-limit": hourly_limit, "--default-limit": default_limit or None}), None),
        "allowed_origins": (_one_of({"--origin": origin or None, "--any-origin": any_origin or None}), []),
        "allowed_ips": (_one_of({"--ip": ip or None, "--any-ip": any_ip or None}), []),
    }
    for field, (given, nothing) in ways.items():
        if given is not None:
            fields[field] = nothing if given is True else given
    if not fields:
        raise typer.BadParameter("name a field to update, such as --name; --help lists all")

    async def change(auth: KeyAuth) -> tuple[Key, Key]:
        return await auth.keys.get(id), await auth.keys.update(id, **fields, **given_reason(reason))

    before, after = run_command(change, as_json=as_json)
    if as_json:
        print_json(describe(after))
        return
    changed = [field for field in fields if getattr(before, field) != getattr(after, field)]
    said = f"changed: {', '.join(changed)}." if changed else "is unchanged."
    say(f"Key {after.id} ({after.name}, {after.owner_id}) {said}")


def _one_of(options: dict[str, Any]) -> Any:
    """Return the value of the option that was given, or None."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise typer.BadParameter(f"give {' or '.join(given)}, not both")
    return options[given[0]] if given else None


def given_reason(reason: str | None) -> dict[str, str]:
    """Return the reason as an argument, if there is one."""
    return {} if reason is None else {"reason": reason}


def disable(id: KeyId, reason: Reason = None, as_json: Json = False) -> None:
    """Disable a key: it is refused immediately, until it is enabled again."""
    _switch(id, enabled=False, reason=reason, as_json=as_json)


def enable(id: KeyId, reason: Reason = None, as_json: Json = False) -> None:
    """Enable a disabled key again."""
    _switch(id, enabled=True, reason=reason, as_json=as_json)


def _switch(id: str, *, enabled: bool, reason: str | None, as_json: bool) -> None:
    async def change(auth: KeyAuth) -> Key:
        return await auth.keys.update(id, enabled=enabled, **given_reason(reason))

    key = run_command(change, as_json=as_json)
    if as_json:
        print_json(describe(key))
        return
    said = "enabled" if enabled else "disabled"
    if key.status == "expired":
        said += f", but it expired at {moment(key.expires_at)}: keyauth keys update {key.id} --expires-in 30d"
    say(f"Key {key.id} ({key.name}, {key.owner_id}) is {said}.")
