"""``keyauth keys rotate`` and ``keyauth keys revoke``."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from fastapi_keyauth.cli.output import Json, moment, print_json, say
from fastapi_keyauth.cli.parameters import KeyId, Reason, parse_duration
from fastapi_keyauth.cli.records import describe, print_created
from fastapi_keyauth.cli.runner import run_command
from fastapi_keyauth.domain.keys import CreatedKey
from fastapi_keyauth.errors import ChangePending

if TYPE_CHECKING:
    from fastapi_keyauth.keyauth import KeyAuth


def rotate(
    id: KeyId,
    overlap: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration, metavar="1d", help="How long the old token keeps working: 0 to 7d. Default: 1d."
        ),
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Rotate a key and print its new token, only once. The old token keeps working for the overlap."""
    from fastapi_keyauth.keys.management import DEFAULT_OVERLAP, MAX_OVERLAP

    if overlap is not None and overlap > MAX_OVERLAP:
        raise typer.BadParameter(f"at most {MAX_OVERLAP.days}d", param_hint="--overlap")

    async def change(auth: KeyAuth) -> None:
        try:
            created = await auth.keys.rotate(id, DEFAULT_OVERLAP if overlap is None else overlap, reason)
        except ChangePending as pending:
            # The new token is stored nowhere else.
            if pending.token is not None:
                print_created(CreatedKey(pending.token, await auth.keys.get(id)), as_json=as_json)
            raise
        print_created(created, as_json=as_json)
        if not as_json and len(created.key.secrets) > 1:
            say(f"The previous token works until {moment(created.key.secrets[1].expires_at)}.")

    run_command(change, as_json=as_json)


def revoke(
    id: KeyId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="No confirmation.")] = False,
    reason: Reason = None,
    as_json: Json = False,
) -> None:
    """Revoke a key permanently and immediately. On a terminal it asks first. Revoking it again changes nothing."""

    async def change(auth: KeyAuth) -> None:
        key = await auth.keys.get(id)
        if not yes and not as_json and sys.stdin.isatty() and key.status != "revoked":
            question = f"Revoke {key.id} ({key.name}, {key.owner_id}), last used {moment(key.last_used_at)}?"
            typer.confirm(question, abort=True, err=True)
        await auth.keys.revoke(id, reason)
        if as_json:
            print_json(describe(await auth.keys.get(id)))
        else:
            say(f"Key {key.id} ({key.name}, {key.owner_id}) is revoked.")

    run_command(change, as_json=as_json)
