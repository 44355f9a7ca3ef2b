"""``keyauth audit``: what a security review would ask about the keys."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from fastapi_keyauth.cli.output import Json, print_json, say
from fastapi_keyauth.cli.runner import Exit, run_command
from fastapi_keyauth.cli.tables import print_table
from fastapi_keyauth.domain.audit import FindingKind

if TYPE_CHECKING:
    from fastapi_keyauth.domain.audit import AuditPage
    from fastapi_keyauth.keyauth import KeyAuth


def _parse_finding(name: str) -> str:
    if name not in get_args(FindingKind):
        raise typer.BadParameter(f"must be one of: {', '.join(get_args(FindingKind))}")
    return name


def audit(
    owner: Annotated[str | None, typer.Option(help="Owner of the keys. Default: all owners.")] = None,
    finding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", parser=_parse_finding, help="Only findings of this name (repeatable). Default: all."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what a security review would ask about the active keys. The exit code is 1 if there are findings."""

    async def read(auth: KeyAuth) -> AuditPage:
        return await auth.keys.audit(owner)

    items = [item for item in run_command(read, as_json=as_json) if not finding or item.finding in finding]
    if as_json:
        print_json({"items": [asdict(item) for item in items]})
    elif items:
        rows = [(item.finding, item.key_id, item.owner_id, item.detail) for item in items]
        print_table(("finding", "key", "owner", "detail"), rows)
    else:
        say("There are no such findings." if finding else "There are no findings.")
    if items:
        raise typer.Exit(Exit.REFUSED)
