"""``keyauth db``: the tables and their revision."""

import asyncio

import typer

from fastapi_keyauth.cli.output import Json, print_facts, print_json, say
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.runner import Exit, failing
from fastapi_keyauth.cli.source import load_and_announce_settings

app = typer.Typer(no_args_is_help=True, help="Show the revision of the tables, and upgrade them.")


@app.command("upgrade")
def upgrade_tables(as_json: Json = False) -> None:
    """Upgrade the tables to the newest revision, in one transaction. Run it after an update, before the start."""
    from fastapi_keyauth.store import schema
    from fastapi_keyauth.store.upgrade import upgrade

    with failing(as_json=as_json), tracking("upgrading", len(schema.REVISIONS)) as tracker:

        def on_step(revision: str, what: str) -> None:
            tracker.describe(f"{revision} is done")
            tracker.advance()
            if not as_json:
                say(f"{revision}  {what}")

        applied = asyncio.run(upgrade(load_and_announce_settings(as_json=as_json).database_url, on_step))
    if as_json:
        print_json({"applied": applied, "revision": schema.NEWEST})
    elif not applied:
        say(f"Nothing to do: the tables have the newest revision, {schema.NEWEST}.")


@app.command()
def current(as_json: Json = False) -> None:
    """Show the revision of the tables. The exit code is 1 if they are behind, for scripts."""
    from fastapi_keyauth.store import schema
    from fastapi_keyauth.store.upgrade import find_revision

    with failing(as_json=as_json):
        found = asyncio.run(find_revision(load_and_announce_settings(as_json=as_json).database_url))
    state = describe(found)
    if as_json:
        print_json({"revision": found, "newest": schema.NEWEST, "state": state})
    else:
        print_facts([("revision", found or "none"), ("newest", schema.NEWEST), ("state", state)])
    if state == "behind":
        raise typer.Exit(Exit.REFUSED)


def describe(revision: str | None) -> str:
    """Return ``empty``, ``behind``, ``newest`` or ``ahead``."""
    from fastapi_keyauth.store import schema

    if revision is None:
        return "empty"
    if revision == schema.NEWEST:
        return "newest"
    return "behind" if revision in schema.REVISIONS else "ahead"
