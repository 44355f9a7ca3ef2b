"""``keyauth token``: the parts of a token. Nothing is looked up and nothing is sent."""

import re
from typing import Annotated, Any

import typer

from fastapi_keyauth.cli.output import Json, print_facts, print_json
from fastapi_keyauth.cli.parameters import read_token
from fastapi_keyauth.cli.runner import Exit, fail, failing
from fastapi_keyauth.cli.source import load_settings
from fastapi_keyauth.domain.tokens import CRC_LENGTH, SESSION_PREFIX, TokenFormError, TokenParser, checksum

app = typer.Typer(no_args_is_help=True, help="Inspect tokens offline.")

_API = re.compile(r"([0-9A-Za-z]{1,16})_([a-z0-9]{1,16})_([0-9A-Za-z]{12})_[0-9A-Za-z]{49}")
_SESSION = re.compile(rf"{SESSION_PREFIX}_[0-9A-Za-z]{{49}}")


@app.callback()
def group() -> None:
    """Keep ``inspect`` as a subcommand while it is the only one."""


@app.command()
def inspect(
    token: Annotated[str | None, typer.Argument(metavar="TOKEN", help="Token; better given on standard input.")] = None,
    as_json: Json = False,
) -> None:
    """Show a token's prefix, environment and key id, and whether its checksum is right. Its secret is not shown.

    The token is read from standard input or asked for. Whether the key exists is not looked up.
    """
    value = read_token(token, "token")
    with failing(as_json=as_json):
        prefix = load_settings().key_prefix
    facts = _facts(value, prefix)
    if facts is None:
        try:
            TokenParser(prefix).parse(value)
            reason = "it has the wrong form"
        except TokenFormError as error:
            reason = str(error)
        fail(Exit.REFUSED, "malformed", f"This is not a token: {reason}.", as_json=as_json)
    if as_json:
        print_json(facts)
    else:
        words = {True: "yes", False: "no"}
        print_facts((name.replace("_", " "), str(words.get(fact, fact))) for name, fact in facts.items())
    if facts["checksum"] != "good":
        raise typer.Exit(Exit.REFUSED)


def _facts(value: str, prefix: str) -> dict[str, Any] | None:
    kind: dict[str, Any]
    if match := _API.fullmatch(value):
        kind = {"kind": "api key", "prefix": match[1], "is_our_prefix": match[1] == prefix}
        kind |= {"environment": match[2], "id": match[3]}
    elif _SESSION.fullmatch(value):
        kind = {"kind": "session", "prefix": SESSION_PREFIX}
    else:
        return None
    is_good = checksum(value[:-CRC_LENGTH]) == value[-CRC_LENGTH:]
    return {**kind, "checksum": "good" if is_good else "bad: mistyped or cut off"}
