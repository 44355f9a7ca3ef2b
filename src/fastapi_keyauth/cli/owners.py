"""``keyauth owners``: the owners of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastapi_keyauth.cli.output import Json, moment, print_facts, print_json, print_line, say
from fastapi_keyauth.cli.parameters import parse_object
from fastapi_keyauth.cli.runner import run_command
from fastapi_keyauth.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi_keyauth.domain.owners import Erasure, Owner
    from fastapi_keyauth.keyauth import KeyAuth

app = typer.Typer(no_args_is_help=True, help="Show, limit, suspend and erase the owners of keys.")

OwnerId = Annotated[str, typer.Argument(metavar="OWNER", help="Id of the owner.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the history.")]


@app.command()
def show(owner_id: OwnerId, as_json: Json = False) -> None:
    """Show an owner, its limits and the number of its keys."""
    _run_and_print(lambda auth: auth.owners.get(owner_id), as_json=as_json)


@app.command("set")
def set_owner(
    owner_id: OwnerId,
    name: Annotated[str | None, typer.Option(help="Name for people.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON",
            help='Limit of all its keys together (repeatable): {"name": "day", "limit": 50000, "per": "day"}.',
        ),
    ] = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="No limits.")] = False,
    default_limits: Annotated[bool, typer.Option("--default-limits", help="The default limits.")] = False,
    as_json: Json = False,
) -> None:
    """Set the name or the limits of an owner. What is not named stays unchanged; limits are replaced as a whole."""
    ways = (bool(limit), no_limits, default_limits)
    if sum(ways) > 1:
        raise typer.BadParameter("give one of --limit, --no-limits and --default-limits")
    fields: dict[str, Any] = {} if name is None else {"name": name}
    if any(ways):
        fields["limits"] = None if default_limits else [parse_object(text) for text in limit or ()]
    if not fields:
        raise typer.BadParameter("give a name or limits to set")
    _run_and_print(lambda auth: auth.owners.set(owner_id, **fields), as_json=as_json)


@app.command()
def suspend(owner_id: OwnerId, reason: Reason = None, as_json: Json = False) -> None:
    """Refuse every key of an owner, on all workers."""
    _run_and_print(lambda auth: auth.owners.suspend(owner_id, reason), as_json=as_json)


@app.command()
def resume(owner_id: OwnerId, reason: Reason = None, as_json: Json = False) -> None:
    """End the suspension of an owner."""
    _run_and_print(lambda auth: auth.owners.resume(owner_id, reason), as_json=as_json)


@app.command("revoke-keys")
def revoke_keys(
    owner_id: Annotated[str | None, typer.Argument(metavar="[OWNER]", help="Id of the owner.")] = None,
    created_by: Annotated[
        str | None, typer.Option(help="Actor that created the keys: user:<id>, key:<id>, cli:<name>.")
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Revoke all keys of an owner, or all that one actor created."""
    if owner_id is None and created_by is None:
        raise typer.BadParameter("give an owner or --created-by")

    async def revoke(auth: KeyAuth) -> int:
        return await auth.owners.revoke_keys(owner_id, created_by=created_by, reason=reason)

    count = run_command(revoke, as_json=as_json)
    if as_json:
        print_json({"revoked": count})
    else:
        say(f"{count} keys revoked.")


@app.command()
def erase(
    owner_id: OwnerId,
    confirmed: Annotated[bool, typer.Option("--yes", help="No confirmation.")] = False,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Revoke an owner's keys and sessions and remove everything personal, permanently."""
    if not confirmed:
        typer.confirm(
            f"Revoke all keys and sessions of {owner_id!r} and erase everything personal?", abort=True, err=True
        )

    async def run(auth: KeyAuth) -> Erasure:
        return await auth.owners.erase(owner_id, reason)

    erased = run_command(run, as_json=as_json)
    counts = {name: getattr(erased, name) for name in ("keys", "sessions", "events", "owners", "usage")}
    if as_json:
        print_json({**counts, "rows": erased.rows})
    else:
        say(f"Erased: {', '.join(f'{number} {what}' for what, number in counts.items())}.")


def _run_and_print(work: Callable[[KeyAuth], Awaitable[Owner]], *, as_json: bool) -> None:
    from fastapi_keyauth.http.routers.owners import OwnerOut

    async def run(auth: KeyAuth) -> Owner:
        return await work(auth)

    owner = run_command(run, as_json=as_json)
    if as_json:
        print_json(OwnerOut.model_validate(owner).model_dump(mode="json"))
        return
    print_facts(
        [
            ("owner", owner.owner_id),
            ("name", owner.name or "-"),
            ("suspended", moment(owner.suspended_at)),
            ("reason", owner.reason or "-"),
            *((f"{status} keys", str(getattr(owner.keys, status))) for status in owner.keys.__slots__),
        ]
    )
    if owner.limits:
        print_line("")
        rows = [(s.name, f"{s.limit} {s.unit}", str(s.per), str(s.remaining), moment(s.reset_at)) for s in owner.limits]
        print_table(("limit", "units", "per", "left", "resets"), rows)
