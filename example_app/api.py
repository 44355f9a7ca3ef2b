"""The routes of the product. Each declares the credentials that it requires; fastapi-keyauth checks them."""

import json
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Security, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlmodel import col, select

from example_app.accounts import BROKEN
from example_app.auth import auth
from example_app.database import Database, Note
from fastapi_keyauth import KeyPrincipal, SessionPrincipal

router = APIRouter(prefix="/v1", tags=["Models"])


class Model(BaseModel):
    """A model."""

    id: str


class ModelList(BaseModel):
    """The available models."""

    data: list[Model]


class Prompt(BaseModel):
    """A prompt for a model."""

    prompt: str = Field(min_length=1, max_length=4000)


class NewNote(BaseModel):
    """A note to store."""

    text: str = Field(min_length=1, max_length=4000, pattern=r"^[^\x00]*$")


class NoteOut(BaseModel):
    """A note."""

    id: int
    text: str


@router.get("/models", dependencies=[Depends(auth.require_key)])
async def list_models() -> ModelList:
    """List the models. Any valid API key is accepted."""
    return ModelList(data=[Model(id="parrot-1")])


@router.post(
    "/completions",
    dependencies=[Security(auth.require_key, scopes=["completions:write"])],
    response_class=StreamingResponse,
    responses=BROKEN | {200: {"content": {"text/event-stream": {}}}},
)
async def complete(asked: Prompt) -> StreamingResponse:
    """Stream a completion that repeats the prompt, one event per word. Requires the scope ``completions:write``."""
    return StreamingResponse(say_back(asked.prompt), media_type="text/event-stream")


def say_back(prompt: str) -> Iterator[str]:
    """Yield the prompt word by word, in place of a real model."""
    for word in prompt.split():
        yield f"data: {json.dumps({'text': word})}\n\n"
    yield "data: [DONE]\n\n"


@router.get("/notes")
async def list_notes(
    key: Annotated[KeyPrincipal, Security(auth.require_key, scopes=["notes:read"])], database: Database
) -> list[NoteOut]:
    """List the latest notes of the key's owner."""
    latest = select(Note).where(Note.user_id == key.owner_id).order_by(col(Note.id).desc()).limit(100)
    return [NoteOut.model_validate(note, from_attributes=True) for note in await database.exec(latest)]


@router.post("/notes", status_code=201, responses=BROKEN)
async def add_note(
    new: NewNote,
    user: Annotated[SessionPrincipal, Security(auth.require_key_and_session, scopes=["notes:write"])],
    database: Database,
) -> NoteOut:
    """Store a note. Requires an API key, which identifies the program, and a session, which identifies the user."""
    note = Note(user_id=user.user_id, text=new.text)
    database.add(note)
    await database.commit()
    return NoteOut.model_validate(note, from_attributes=True)


@router.websocket("/echo")
async def echo(websocket: WebSocket, key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None:
    """Echo every message. A connection without a valid key is refused before it is accepted."""
    await websocket.accept()
    async for message in websocket.iter_text():
        await websocket.send_text(f"{key.name}: {message}")
