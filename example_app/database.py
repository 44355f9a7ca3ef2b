"""The product's own tables, in the database that also holds the keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, FastAPI, Request
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from example_app.auth import auth


class Base(SQLModel, registry=registry(metadata=MetaData())):
    """Base of the product's tables."""


class User(Base, table=True):
    """A person with an account. The id is the ``owner_id`` of the user's keys and the ``user_id`` of the sessions."""

    __tablename__ = "users"

    id: str = Field(default_factory=lambda: uuid4().hex, primary_key=True, max_length=32)
    email: str = Field(unique=True, max_length=255)
    password_hash: str


class Note(Base, table=True):
    """A user's note."""

    __tablename__ = "notes"

    id: int | None = Field(default=None, primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True, max_length=32)
    text: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the database while the application runs."""
    engine = create_async_engine(auth.settings.database_url)
    try:
        await create_tables(engine)
        app.state.engine = engine
        yield
    finally:
        await engine.dispose()


async def create_tables(engine: AsyncEngine) -> None:
    """Create missing tables. Workers that start concurrently take turns, so that only the first one creates them."""
    is_sqlite = engine.dialect.name == "sqlite"
    take_turn = "BEGIN IMMEDIATE" if is_sqlite else "SELECT pg_advisory_xact_lock(20261121)"
    async with engine.begin() as connection:
        await connection.execute(text(take_turn))
        await connection.run_sync(Base.metadata.create_all)


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    """Yield a database session for one request."""
    async with AsyncSession(request.app.state.engine, expire_on_commit=False) as session:
        yield session


Database = Annotated[AsyncSession, Depends(open_session)]
