"""What the three shapes share: a login for their only user, and a start that prints what to try."""

import argparse
import asyncio
import secrets
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException
from pydantic import BaseModel

from fastapi_keyauth import KeyAuth

HOST = "127.0.0.1"
EMAIL = "ada@example.com"
PASSWORD = secrets.token_urlsafe(9)
"""A new one for each start."""


class LogIn(BaseModel):
    """Email address and password."""

    email: str
    password: str


def login_router(auth: KeyAuth, user_id: str) -> APIRouter:
    """Return a router with ``POST /login``, which your own login replaces. The key page uses it, too."""
    router = APIRouter()

    @router.post("/login")
    async def log_in(who: LogIn) -> dict[str, str]:
        if who.email != EMAIL or not secrets.compare_digest(who.password.encode(), PASSWORD.encode()):
            raise HTTPException(401, "Email or password is wrong.")
        return {"session_token": await auth.sessions.create(user_id)}

    return router


def start(app: FastAPI, auth: KeyAuth, user_id: str, file: str) -> None:
    """Print the login and the commands of the shell script beside the file, and serve the application."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1 (default: 8000)")
    port = parser.parse_args().port
    url = f"http://{HOST}:{port}"
    session = asyncio.run(create_session(auth, user_id))
    print(f"key page  {url}/settings/api-keys\nlogin     {EMAIL}  {PASSWORD}\n")
    print(f"Paste this into another terminal:\n\nURL={url}\nSESSION={session}\n")
    print(Path(file).with_suffix(".sh").read_text("utf-8"), flush=True)
    uvicorn.run(app, host=HOST, port=port, proxy_headers=False)


async def create_session(auth: KeyAuth, user_id: str) -> str:
    """Return the token of a new session."""
    async with auth:
        return await auth.sessions.create(user_id)
