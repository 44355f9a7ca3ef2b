"""``keyauth audit``: what a security review would ask about the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fastapi_keyauth.cli.output import Json, print_json, print_table, say
from fastapi_keyauth.cli.runner import Exit, run_command

if TYPE_CHECKING:
    from fastapi_keyauth.domain.audit import AuditPage
    from fastapi_keyauth.keyauth import KeyAuth


def audit(
    owner: Annotated[str | None, typer.Option(help="Owner of the keys. Default: all owners.")] = None,
    as_json: Json = False,
) -> None:
    """List what a security review would ask about the active keys. The exit code is 1 if there are findings."""

    async def read(auth: KeyAuth) -> AuditPage:
        return await auth.keys.audit(owner)

    found = run_command(read, as_json=as_json)
    if as_json:
        from fastapi_keyauth.http.routers.schemas import AuditPageOut

        print_json({"items": AuditPageOut.model_validate(found).model_dump(mode="json")["items"]})
    elif found.items:
        rows = [(item.finding, item.key_id, item.owner_id, item.detail) for item in found]
        print_table(("finding", "key", "owner", "detail"), rows)
    else:
        say("There are no findings.")
    if found.items:
        raise typer.Exit(Exit.REFUSED)
