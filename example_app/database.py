"""The product's own tables, in the database that also holds the keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal
from uuid import uuid4

from fastapi import Depends
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from example_app.settings import settings

Role = Literal["viewer", "developer", "manager"]
# It opens no connection before the first statement.
engine = create_async_engine(settings.database_url)


class Base(SQLModel, registry=registry(metadata=MetaData())):
    """Base of the product's tables."""


class User(Base, table=True):
    """A person with an account. The id is the ``user_id`` of the person's sessions."""

    __tablename__ = "users"

    id: str = Field(default_factory=lambda: uuid4().hex, primary_key=True, max_length=32)
    email: str = Field(unique=True, max_length=255)
    password_hash: str


class Team(Base, table=True):
    """A team. The id is the ``owner_id`` of its keys, and the id of the user who founded it by signing up."""

    __tablename__ = "teams"

    id: str = Field(primary_key=True, foreign_key="users.id", max_length=32)
    plan: str = Field(default="free", max_length=16)


class Member(Base, table=True):
    """A user's role in a team."""

    __tablename__ = "members"

    team_id: str = Field(primary_key=True, foreign_key="teams.id", max_length=32)
    user_id: str = Field(primary_key=True, foreign_key="users.id", index=True, max_length=32)
    role: str = Field(max_length=16)


class Note(Base, table=True):
    """A note of a team."""

    __tablename__ = "team_notes"

    id: int | None = Field(default=None, primary_key=True)
    team_id: str = Field(foreign_key="teams.id", index=True, max_length=32)
    author_id: str = Field(foreign_key="users.id", max_length=32)
    text: str


@asynccontextmanager
async def open_database() -> AsyncIterator[None]:
    """Create missing tables, and close all connections in the end."""
    # Workers that start concurrently take turns, so that only the first one creates the tables.
    is_sqlite = engine.dialect.name == "sqlite"
    take_turn = "BEGIN IMMEDIATE" if is_sqlite else "SELECT pg_advisory_xact_lock(20261121)"
    try:
        async with engine.begin() as connection:
            await connection.execute(text(take_turn))
            await connection.run_sync(Base.metadata.create_all)
        yield
    finally:
        await engine.dispose()


async def open_session() -> AsyncIterator[AsyncSession]:
    """Yield a database session for one request."""
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


Database = Annotated[AsyncSession, Depends(open_session)]


async def add_account(user: User, database: AsyncSession) -> None:
    """Add a user, with a team that the user manages. The caller commits."""
    for row in (user, Team(id=user.id), Member(team_id=user.id, user_id=user.id, role="manager")):
        database.add(row)
        await database.flush()  # in this order, because each row refers to the one before it
