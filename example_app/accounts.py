"""Accounts: sign up, log in, log out.

A real product also limits login attempts and confirms the email address.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from example_app.auth import auth
from example_app.database import Database, User, add_account
from example_app.passwords import hash_password, verify_password

router = APIRouter(tags=["Account"])

BROKEN: dict[int | str, dict[str, Any]] = {400: {"description": "The body is not valid UTF-8"}}

# No white space and no control characters. They are listed explicitly because regular expression dialects differ, and
# clients read this pattern from the OpenAPI document with their own dialect.
_PART = r"[^@\s\x00-\x1f\x7f-\x9f\ufeff]+"

Email = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, max_length=255, pattern=f"^{_PART}@{_PART}$")
]


class LogIn(BaseModel):
    """Email address and password of a user."""

    email: Email
    password: str = Field(max_length=1000, repr=False)


class SignUp(LogIn):
    """Data of a new account."""

    password: str = Field(min_length=12, max_length=1000, repr=False)


class Account(BaseModel):
    """An account, without its password."""

    id: str
    email: str


class LoggedIn(BaseModel):
    """A session token, to be sent as ``Authorization: Bearer <session_token>``."""

    session_token: str


@router.post("/signup", status_code=201, responses=BROKEN | {409: {"description": "The email address is in use"}})
async def sign_up(new: SignUp, database: Database) -> Account:
    """Create an account, with a team that the user manages."""
    user = User(email=new.email, password_hash=await hash_password(new.password))
    try:
        await add_account(user, database)
        await database.commit()
    except IntegrityError:
        raise HTTPException(409, "An account with this email address already exists.") from None
    return Account(id=user.id, email=user.email)


@router.post("/login", responses=BROKEN | {401: {"description": "Email or password is wrong"}})
async def log_in(who: LogIn, database: Database, response: Response) -> LoggedIn:
    """Start a session. A wrong password and an unknown email address get the same response after the same time."""
    user = (await database.exec(select(User).where(User.email == who.email))).first()
    await database.close()  # Other requests can use the connection while the hash is computed.
    is_right = await verify_password(user.password_hash if user else None, who.password)
    if user is None or not is_right:
        raise HTTPException(401, "Email or password is wrong.")
    response.headers["Cache-Control"] = "no-store"
    return LoggedIn(session_token=await auth.sessions.create(user.id))


@router.post("/logout", status_code=204, dependencies=[Depends(auth.require_session)])
async def log_out(request: Request) -> None:
    """End the session that authenticated the request."""
    await auth.sessions.revoke(auth.session_token(request) or "")
