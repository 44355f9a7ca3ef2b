"""``keyauth sessions``: the built-in sessions, for example to try the management routes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from fastapi_keyauth.cli.output import Json, print_json, print_line, say
from fastapi_keyauth.cli.parameters import parse_duration, read_token
from fastapi_keyauth.cli.runner import Exit, fail, run_command
from fastapi_keyauth.domain.tokens import is_session_token

if TYPE_CHECKING:
    from fastapi_keyauth.keyauth import KeyAuth

app = typer.Typer(no_args_is_help=True, help="Start and end the built-in sessions of users.")


@app.command()
def create(
    user: Annotated[str, typer.Option(help="User of the session, and owner of the keys that it creates.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Scope to grant (repeatable). Default: '*' (all except keys:* and admin)."),
    ] = None,
    ttl: Annotated[
        timedelta | None,
        typer.Option(parser=parse_duration, metavar="12h", help="Lifetime. Default: the setting session_ttl_s."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start a session and print its token, only once and alone on standard output."""

    async def start(auth: KeyAuth) -> str:
        return await auth.sessions.create(user, scope or ("*",), ttl)

    token = run_command(start, as_json=as_json)
    if as_json:
        print_json({"token": token, "user_id": user, "scopes": sorted(scope or ["*"])})
        return
    print_line(token)
    say(f"This is a session token of {user}. Send it as 'Authorization: Bearer ...'. It is shown only once.")


@app.command()
def revoke(
    token: Annotated[
        str | None, typer.Argument(metavar="TOKEN", help="Session token; better given on standard input.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="User whose sessions to end, in place of one token.")] = None,
    as_json: Json = False,
) -> None:
    """End one session, whose token is read from standard input or asked for, or all sessions of a user."""
    if user is not None:
        if token is not None:
            raise typer.BadParameter("give a token or --user, not both")

        async def end_all(auth: KeyAuth) -> None:
            await auth.sessions.revoke_all(user)

        run_command(end_all, as_json=as_json)
        _report(f"All sessions of {user} have ended.", as_json=as_json)
        return
    value = read_token(token, "session token")
    if not is_session_token(value):
        fail(Exit.USAGE, "invalid", "This is not a session token.", as_json=as_json)

    async def end(auth: KeyAuth) -> None:
        await auth.sessions.revoke(value)

    run_command(end, as_json=as_json)
    _report("The session has ended.", as_json=as_json)


def _report(sentence: str, *, as_json: bool) -> None:
    """Print the result. It does not say whether the session existed: the result is the same."""
    if as_json:
        print_json({"revoked": True})
    else:
        say(sentence)
