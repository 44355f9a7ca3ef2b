"""The command line ``keyauth``, with one module for each noun. It requires the extra ``cli``."""

import logging
import sys

_EXTRA = ("rich", "typer")


def main() -> None:
    """Run ``keyauth``."""
    try:
        from fastapi_keyauth.cli.app import app  # the extra may be missing
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write("The command line requires typer and rich. Install fastapi-keyauth with its extra 'cli'.\n")
        raise SystemExit(3) from None
    # A command says in one sentence what a worker logs at length ("each worker enforces limits on its own").
    logging.getLogger("fastapi_keyauth").addHandler(logging.NullHandler())
    app(prog_name="keyauth")
