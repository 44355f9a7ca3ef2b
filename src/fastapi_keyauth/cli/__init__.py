"""The command line ``keyauth``: one module for each noun. Needs the extra ``cli``, and says so where it is missing."""

import logging
import sys

_EXTRA = ("rich", "typer")


def main() -> None:
    """What ``keyauth`` runs."""
    try:
        from fastapi_keyauth.cli.app import app  # noqa: PLC0415  # not before it is known that it can be
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write("The command line needs typer and rich: install fastapi-keyauth with its extra 'cli'.\n")
        raise SystemExit(3) from None
    # What a worker would log at length ("each worker limits by itself") a command says in a sentence of its own.
    logging.getLogger("fastapi_keyauth").addHandler(logging.NullHandler())
    app(prog_name="keyauth")
