"""The routes of the product. Each declares the credentials that it requires; fastapi-keyauth checks them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from anyio import CancelScope
from fastapi import APIRouter, Depends, Security, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlmodel import col, select

from example_app.accounts import BROKEN
from example_app.auth import auth
from example_app.database import Database, Note
from example_app.parrot import MODELS, Answer, Chat
from fastapi_keyauth import Hold, KeyPrincipal, LimiterUnavailable, SessionPrincipal

router = APIRouter(prefix="/v1", tags=["Models"])


class NewNote(BaseModel):
    """A note to store."""

    text: str = Field(min_length=1, max_length=4000, pattern=r"^[^\x00]*$")


class NoteOut(BaseModel):
    """A note."""

    id: int
    text: str


@router.get("/models", dependencies=[Depends(auth.require_key)])
async def list_models() -> dict[str, Any]:
    """List the models. Any valid API key is accepted."""
    return MODELS


@router.post("/chat/completions", response_model=None, responses=BROKEN | {200: {"content": {"text/event-stream": {}}}})
async def complete(
    chat: Chat, key: Annotated[KeyPrincipal, Security(auth.require_key, scopes=["completions:write"])]
) -> dict[str, Any] | StreamingResponse:
    """Answer a chat, word by word if ``stream`` is true. Requires the scope ``completions:write``.

    The maximum number of tokens is reserved before the model runs: a 429 if the key or the team has fewer left.
    """
    answer = Answer(chat)
    hold = await auth.reserve(key, tokens=answer.max_tokens)
    if chat.stream:
        return StreamingResponse(stream(answer, hold), media_type="text/event-stream")
    async with settling(answer, hold):
        return await answer.complete()


async def stream(answer: Answer, hold: Hold) -> AsyncIterator[str]:
    """Yield an answer as server-sent events."""
    async with settling(answer, hold):
        async for event in answer.stream():
            yield event


@asynccontextmanager
async def settling(answer: Answer, hold: Hold) -> AsyncIterator[None]:
    """Charge what was generated in the end, also if the client hangs up or its key is revoked."""
    try:
        yield
    finally:
        # Shielded, because an answer that ends early is cancelled. Without Redis, the reservation stays charged.
        with CancelScope(shield=True), suppress(LimiterUnavailable):
            await hold.settle(tokens=answer.tokens)


@router.get("/notes")
async def list_notes(
    key: Annotated[KeyPrincipal, Security(auth.require_key, scopes=["notes:read"])], database: Database
) -> list[NoteOut]:
    """List the latest notes of the key's team."""
    latest = select(Note).where(Note.team_id == key.owner_id).order_by(col(Note.id).desc()).limit(100)
    return [NoteOut.model_validate(note, from_attributes=True) for note in await database.exec(latest)]


@router.post("/notes", status_code=201, responses=BROKEN)
async def add_note(
    new: NewNote,
    author: Annotated[SessionPrincipal, Security(auth.require_key_and_session, scopes=["notes:write"])],
    database: Database,
) -> NoteOut:
    """Store a note. Requires an API key, which identifies the team, and a session, which identifies the author."""
    team_id = author.key.owner_id if author.key else author.user_id
    note = Note(team_id=team_id, author_id=author.user_id, text=new.text)
    database.add(note)
    await database.commit()
    return NoteOut.model_validate(note, from_attributes=True)


@router.websocket("/echo")
async def echo(websocket: WebSocket, key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None:
    """Greet, and echo every message. The connection is refused without a valid key, and ends with its key."""
    await websocket.accept()
    await websocket.send_text(f"Hello, {key.name}")
    async for message in websocket.iter_text():
        await websocket.send_text(message)
