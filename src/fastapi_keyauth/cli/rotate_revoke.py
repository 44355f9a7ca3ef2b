"""``keyauth keys rotate`` and ``revoke``: what changes a key that is there."""

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from fastapi_keyauth.cli.output import Json, moment, print_json, print_line, say
from fastapi_keyauth.cli.parameters import KeyId, parse_duration
from fastapi_keyauth.cli.runner import run_command
from fastapi_keyauth.domain.keys import CreatedKey, Key
from fastapi_keyauth.errors import ChangePending
from fastapi_keyauth.http.routers.schemas import CreatedKeyOut, KeyOut
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.keys.service import DEFAULT_OVERLAP, MAX_OVERLAP


def dump(model: type[BaseModel], record: Any) -> dict[str, Any]:
    """A record in the form that the management routes give it."""
    return model.model_validate(asdict(record)).model_dump(mode="json")


def describe(key: Key) -> dict[str, Any]:
    """A key as the management routes show it. Never its token."""
    return dump(KeyOut, key)


def print_created(created: CreatedKey, *, as_json: bool) -> None:
    """The token, where a program can take it; who it belongs to, where a person reads it."""
    if as_json:
        print_json(CreatedKeyOut.of(created).model_dump(mode="json"))
        return
    key = created.key
    print_line(created.token)
    say(f"This is the token of key {key.id} ({key.name}, {key.owner_id}). It is shown this once: keep it now.")
    if key.expires_at is not None:
        say(f"The key expires at {moment(key.expires_at)}.")


def rotate(
    id: KeyId,
    overlap: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration, metavar="1d", help="How long the old token keeps working: 0 to 7d. Left out: 1d."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a key a new token, and print it once. The old one keeps working for a while, so that nothing stops."""
    if overlap is not None and overlap > MAX_OVERLAP:
        raise typer.BadParameter(f"at most {MAX_OVERLAP.days}d", param_hint="--overlap")

    async def change(auth: KeyAuth) -> None:
        try:
            created = await auth.keys.rotate(id, DEFAULT_OVERLAP if overlap is None else overlap)
        except ChangePending as pending:
            # The new token is out, and can be had nowhere else.
            if pending.token is not None:
                print_created(CreatedKey(pending.token, await auth.keys.get(id)), as_json=as_json)
            raise
        print_created(created, as_json=as_json)
        if not as_json and len(created.key.secrets) > 1:
            say(f"The token before it works until {moment(created.key.secrets[1].expires_at)}.")

    run_command(change, as_json=as_json)


def revoke(
    id: KeyId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Revoke a key, for good and at once. On a terminal it asks first; a second time changes nothing."""

    async def change(auth: KeyAuth) -> None:
        key = await auth.keys.get(id)
        if not yes and not as_json and sys.stdin.isatty() and key.status != "revoked":
            question = f"Revoke {key.id} ({key.name}, {key.owner_id}), last used {moment(key.last_used_at)}?"
            typer.confirm(question, abort=True, err=True)
        await auth.keys.revoke(id)
        if as_json:
            print_json(describe(await auth.keys.get(id)))
        else:
            say(f"Key {key.id} ({key.name}, {key.owner_id}) is revoked.")

    run_command(change, as_json=as_json)
