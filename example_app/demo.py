"""Demo data for ``make demo``: a user, two keys, and the commands to try them with."""

import secrets
from contextlib import suppress
from dataclasses import dataclass

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from example_app.app import app
from example_app.auth import auth
from example_app.database import User
from example_app.passwords import hash_password
from fastapi_keyauth import ChangePending

EMAIL = "demo@example.com"
TINY_LIMIT = 3
_NAME = "created by make demo"


@dataclass(frozen=True)
class Seeds:
    """Created credentials in plain text; they cannot be read again later."""

    password: str
    key: str
    tiny_key: str


async def seed() -> Seeds:
    """Give the demo user a new password and new keys. Those of the previous start stop working.

    Raises:
        SetupError: If the database does not respond, or Redis rejects the connection.
    """
    password = secrets.token_urlsafe(12)
    async with app.router.lifespan_context(app), AsyncSession(app.state.engine) as database:
        user = (await database.exec(select(User).where(User.email == EMAIL))).first()
        user = user or User(email=EMAIL, password_hash="")
        user.password_hash = await hash_password(password)
        owner_id = user.id
        database.add(user)
        await database.commit()
        await auth.sessions.revoke_all(owner_id)
        for old in (await auth.keys.list(owner_id, status="active", q=_NAME)).items:
            with suppress(ChangePending):  # Redis is unavailable: the change takes effect soon after it recovers.
                await auth.keys.revoke(old.id)
        key = await auth.keys.create(owner_id, _NAME)
        tiny_key = await auth.keys.create(owner_id, f"{_NAME}, tiny", hourly_limit=TINY_LIMIT)
    return Seeds(password, key.token, tiny_key.token)


def walkthrough(url: str, seeds: Seeds) -> str:
    """Return the shell commands of the walkthrough, in the order in which to run them."""
    numbers = " ".join(str(n + 1) for n in range(TINY_LIMIT))
    # Comments contain no quotes, brackets or other special characters: zsh executes comments that are pasted.
    return f"""\
fastapi-keyauth example

  address   {url}
  key page  {url}/settings/api-keys
  docs      {url}/docs
  login     {EMAIL}  {seeds.password}
  key       {seeds.key}
  tiny key  {seeds.tiny_key}  ({TINY_LIMIT} requests per hour)

Paste this into another terminal, line by line or as a whole:

URL={url}
KEY={seeds.key}
TINY_KEY={seeds.tiny_key}

# 200, the key is enough
curl -iw '\\n' $URL/v1/models -H "api-key: $KEY"

# 401, no key
curl -iw '\\n' $URL/v1/models

# log in and keep the session token
SESSION=$(curl -s $URL/login -H 'content-type: application/json' \\
  -d '{{"email": "{EMAIL}", "password": "{seeds.password}"}}' | sed -E 's/.*"session_token":"([^"]+)".*/\\1/')

# 403, adding a note also requires the session
curl -iw '\\n' $URL/v1/notes -H "api-key: $KEY" -H 'content-type: application/json' -d '{{"text": "Hello"}}'

# 201, key and session
curl -iw '\\n' $URL/v1/notes -H "api-key: $KEY" -H "Authorization: Bearer $SESSION" \\
  -H 'content-type: application/json' -d '{{"text": "Hello"}}'

# 200 until the tiny key is used up, then 429 until the next hour
for n in {numbers}; do curl -si $URL/v1/models -H "api-key: $TINY_KEY" | head -n 1; done
curl -iw '\\n' $URL/v1/models -H "api-key: $TINY_KEY"

# create a key that may only call the model and expires in an hour
CREATED=$(curl -s $URL/api-keys -H "Authorization: Bearer $SESSION" -H 'content-type: application/json' \\
  -d '{{"name": "local-dev", "scopes": ["completions:write"], "expires_in_s": 3600}}')
NEW_ID=$(echo "$CREATED" | sed -E 's/.*"id":"([^"]+)".*/\\1/')
NEW_KEY=$(echo "$CREATED" | sed -E 's/.*"token":"([^"]+)".*/\\1/')

# 200, a streamed response
curl -iw '\\n' $URL/v1/completions -H "Authorization: Bearer $NEW_KEY" \\
  -H 'content-type: application/json' -d '{{"prompt": "Polly wants a cracker"}}'

# 204, revoke it
curl -iw '\\n' -X DELETE $URL/api-keys/$NEW_ID -H "Authorization: Bearer $SESSION"

# 401, revoked
curl -iw '\\n' $URL/v1/models -H "api-key: $NEW_KEY"

Stop the server with Ctrl-C.
"""
