"""The whole command: its nouns put together."""

from importlib.metadata import version
from typing import Annotated

import typer

from fastapi_keyauth.cli import blocks, check, db, keys, sessions, token
from fastapi_keyauth.cli.output import print_line

app = typer.Typer(
    no_args_is_help=True,
    # A traceback with local variables would hold secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Manage API keys: make, list, change, rotate, revoke them; lift blocks; upgrade the tables; check the set-up.",
    epilog="Settings come from KEYAUTH_* and .env, as for the application. Exit codes: 0 done, 1 refused or not found,"
    " 2 wrong usage, 3 unavailable or wrongly set up, 4 stored but not yet known everywhere.",
)
for name, noun in {"keys": keys, "sessions": sessions, "blocks": blocks, "token": token, "db": db}.items():
    app.add_typer(noun.app, name=name)
app.command()(check.check)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"fastapi-keyauth {version('fastapi-keyauth')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Nothing to do here: the options above end by themselves."""
