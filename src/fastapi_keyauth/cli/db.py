"""``keyauth db``: the tables and their revision."""

import asyncio

import typer

from fastapi_keyauth.cli.output import Json, print_facts, print_json, say
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.runner import Exit, failing
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import schema
from fastapi_keyauth.store.upgrade import find_revision, upgrade

app = typer.Typer(no_args_is_help=True, help="The tables: which revision they are of, and bringing them to the newest.")


@app.command("upgrade")
def upgrade_tables(as_json: Json = False) -> None:
    """Bring the tables to the newest revision, in one transaction. Run it after an update, before the start."""
    with failing(as_json=as_json), tracking("upgrading", len(schema.REVISIONS)) as tracker:

        def on_step(revision: str, what: str) -> None:
            tracker.describe(f"{revision} is done")
            tracker.advance()
            if not as_json:
                say(f"{revision}  {what}")

        applied = asyncio.run(upgrade(KeyAuthSettings().database_url, on_step))
    if as_json:
        print_json({"applied": applied, "revision": schema.NEWEST})
    elif not applied:
        say(f"Nothing to do: the tables are of the newest revision, {schema.NEWEST}.")


@app.command()
def current(as_json: Json = False) -> None:
    """Show the revision of the tables. Ends with 1 where they are behind, so that a script can tell."""
    with failing(as_json=as_json):
        found = asyncio.run(find_revision(KeyAuthSettings().database_url))
    state = describe(found)
    if as_json:
        print_json({"revision": found, "newest": schema.NEWEST, "state": state})
    else:
        print_facts([("revision", found or "none"), ("newest", schema.NEWEST), ("state", state)])
    if state == "behind":
        raise typer.Exit(Exit.REFUSED)


def describe(revision: str | None) -> str:
    """``empty``, ``behind``, ``newest`` or ``ahead``."""
    if revision is None:
        return "empty"
    if revision == schema.NEWEST:
        return "newest"
    return "behind" if revision in schema.REVISIONS else "ahead"
