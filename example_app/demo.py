"""Demo data for ``make demo``: a user with a team and two keys, and the commands to try them with."""

import secrets
from contextlib import suppress
from pathlib import Path

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from example_app.app import app
from example_app.auth import auth
from example_app.database import Team, User, add_account, engine
from example_app.passwords import hash_password
from fastapi_keyauth import ChangePending

EMAIL = "demo@example.com"
TINY_LIMIT = 3
_NAME = "created by make demo"


async def seed() -> dict[str, str]:
    """Give the demo user a new password and new keys. Those of the previous start stop working.

    Returns:
        The shell variables of the walkthrough, with the credentials in plain text. They cannot be read again later.

    Raises:
        SetupError: If the database does not respond, or Redis rejects the connection.
    """
    password = secrets.token_urlsafe(12)
    async with app.router.lifespan_context(app), AsyncSession(engine) as database:
        user = (await database.exec(select(User).where(User.email == EMAIL))).first()
        user = user or User(email=EMAIL, password_hash="")
        user.password_hash = await hash_password(password)
        team_id = user.id
        if await database.get(Team, team_id) is None:
            await add_account(user, database)
        await database.commit()
        await auth.sessions.revoke_all(team_id)
        for old in (await auth.keys.list(team_id, status="active", q=_NAME)).items:
            with suppress(ChangePending):  # Redis is unavailable: the change takes effect soon after it recovers.
                await auth.keys.revoke(old.id)
        key = await auth.keys.create(team_id, _NAME)
        tiny_key = await auth.keys.create(team_id, f"{_NAME}, tiny", hourly_limit=TINY_LIMIT)
    return {"TEAM": team_id, "EMAIL": EMAIL, "PASSWORD": password, "KEY": key.token, "TINY_KEY": tiny_key.token}


def walkthrough(url: str, variables: dict[str, str]) -> str:
    """Return what to try, with the shell commands in the order in which to run them."""
    commands = Path(__file__).with_name("walkthrough.sh").read_text("utf-8")
    assignments = "\n".join(f"{name}={value}" for name, value in {"URL": url, **variables}.items())
    return f"""\
fastapi-keyauth example

  address   {url}
  key page  {url}/settings/api-keys
  docs      {url}/docs
  login     {EMAIL}  {variables["PASSWORD"]}
  key       {variables["KEY"]}
  tiny key  {variables["TINY_KEY"]}  ({TINY_LIMIT} requests per hour)

Paste this into another terminal, line by line or as a whole:

{assignments}

{commands}
Stop the server with Ctrl-C. From a terminal, with the extra cli:

keyauth --app example_app.app:auth usage --by unit
keyauth --app example_app.app:auth audit
"""
