"""The whole command, put together from its nouns.

The modules of this package import FastAPI, SQLAlchemy and rich only inside the functions that need them, so that help
and shell completion start fast.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from fastapi_keyauth.cli import audit, blocks, check, db, keys, owners, sessions, token, usage
from fastapi_keyauth.cli.output import print_line
from fastapi_keyauth.cli.source import APP_VARIABLE, app_reference

app = typer.Typer(
    no_args_is_help=True,
    # A traceback with local variables would hold secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Manage API keys: create, list, update, rotate and revoke them; report usage; lift blocks; upgrade the tables;"
    " check the setup.",
    epilog="Settings come from KEYAUTH_* and .env, or with --app from the application. Exit codes: 0 done, 1 refused,"
    " not found, or findings of an audit, 2 wrong usage, 3 unavailable or wrongly set up, 4 stored but not yet"
    " effective on all workers, 130 interrupted.",
)
for name, noun in {
    "keys": keys,
    "owners": owners,
    "sessions": sessions,
    "blocks": blocks,
    "token": token,
    "db": db,
}.items():
    app.add_typer(noun.app, name=name)
app.command()(usage.usage)
app.command()(check.check)
app.command()(audit.audit)


def _print_version(requested: bool) -> None:
    if requested:
        print_line(f"fastapi-keyauth {version('fastapi-keyauth')}")
        raise typer.Exit


@app.callback()
def root(
    application: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:ATTRIBUTE",
            envvar=APP_VARIABLE,
            help="Application, or its KeyAuth, whose settings to use: main:app. Default: KEYAUTH_* and .env.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version of the package.")
    ] = False,
) -> None:
    """Store the global options for the commands."""
    app_reference.set(application or None)
