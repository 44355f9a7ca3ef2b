"""The host application that the contract's tests call."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response, Security, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from fastapi_keyauth import KeyAuth, KeyPrincipal, SessionPrincipal


class Note(BaseModel):
    text: str


def described(key: KeyPrincipal) -> dict[str, Any]:
    """A principal as JSON."""
    return {
        "id": key.id,
        "name": key.name,
        "owner_id": key.owner_id,
        "environment": key.environment,
        "scopes": sorted(key.scopes),
        "metadata": dict(key.metadata),
        "hourly_limit": key.hourly_limit,
        "remaining": key.remaining,
    }


class HostApp(FastAPI):
    """An app that takes its management routes in when they are first asked for: most tests never do, and it is what
    takes the longest about making an app."""

    def __init__(self, auth: KeyAuth) -> None:
        super().__init__()
        self._keys_router_of: KeyAuth | None = auth
        auth.install(self)

    def _take_in_keys_router(self) -> None:
        if self._keys_router_of is not None:
            self.include_router(self._keys_router_of.keys_router, prefix="/api-keys")
            self._keys_router_of = None

    def openapi(self) -> dict[str, Any]:
        """All routes, those that nobody asked for yet included."""
        self._take_in_keys_router()
        return super().openapi()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").startswith("/api-keys"):
            self._take_in_keys_router()
        await super().__call__(scope, receive, send)


def build_app(auth: KeyAuth) -> FastAPI:
    """An app with one route for each thing that the contract speaks of."""
    app = HostApp(auth)
    add_key_routes(app, auth)
    add_session_routes(app, auth)
    add_odd_responses(app, auth)
    return app


def add_key_routes(app: FastAPI, auth: KeyAuth) -> None:
    """Routes that look at the key alone."""

    @app.get("/models")
    async def models(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> dict[str, Any]:
        return described(key)

    @app.get("/items")
    async def items(
        key: Annotated[KeyPrincipal, Security(auth.require_key, scopes=["items:read"])],
    ) -> dict[str, Any]:
        return described(key)

    @app.get("/maybe")
    async def maybe(
        key: Annotated[KeyPrincipal | None, Depends(auth.optional_key)],
    ) -> dict[str, Any]:
        return {"id": None if key is None else key.id}

    @app.get("/open")
    async def open_to_all() -> dict[str, str]:
        return {"hello": "world"}

    async def again(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return key.id

    router = APIRouter(dependencies=[Depends(auth.require_key), Depends(auth.optional_key)])

    @router.get("/asked-often", dependencies=[Security(auth.require_key, scopes=["items:read"])])
    async def asked_often(
        key: Annotated[KeyPrincipal, Depends(auth.require_key)],
        same: Annotated[str, Depends(again)],
        session: Annotated[SessionPrincipal, Depends(auth.require_key_and_session)],
    ) -> dict[str, Any]:
        assert session.key is not None
        return {**described(key), "ids": sorted({key.id, same, session.key.id})}

    app.include_router(router)

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None:
        await websocket.accept()
        await websocket.send_json({"id": key.id})
        await websocket.close()


def add_session_routes(app: FastAPI, auth: KeyAuth) -> None:
    """Routes that look at a session, with a key or alone."""

    @app.post("/notes")
    async def notes(
        user: Annotated[SessionPrincipal, Depends(auth.require_key_and_session)],
    ) -> dict[str, Any]:
        key_id = None if user.key is None else user.key.id
        return {"user_id": user.user_id, "key_id": key_id, "scopes": sorted(user.scopes)}

    @app.post("/scoped-notes")
    async def scoped_notes(
        user: Annotated[SessionPrincipal, Security(auth.require_key_and_session, scopes=["items:read"])],
    ) -> dict[str, Any]:
        return {"user_id": user.user_id}

    @app.get("/me")
    async def me(
        user: Annotated[SessionPrincipal, Depends(auth.require_session)],
    ) -> dict[str, Any]:
        return {"user_id": user.user_id, "key": None if user.key is None else user.key.id}

    @app.get("/my-profile")
    async def my_profile(
        user: Annotated[SessionPrincipal, Security(auth.require_session, scopes=["items:read"])],
    ) -> dict[str, Any]:
        return {"user_id": user.user_id}


def add_odd_responses(app: FastAPI, auth: KeyAuth) -> None:
    """Responses that FastAPI does not make itself out of a return value."""
    guarded = APIRouter(dependencies=[Depends(auth.require_key)])

    @guarded.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for chunk in (b"one ", b"two ", b"three"):
                await asyncio.sleep(0)
                yield chunk

        return StreamingResponse(chunks(), media_type="text/plain")

    @guarded.get("/hand-made")
    async def hand_made() -> Response:
        return Response(b"raw", media_type="application/octet-stream", headers={"x-own": "kept"})

    @guarded.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout")

    @guarded.post("/validated")
    async def validated(note: Note) -> Note:
        return note

    @guarded.get("/crash")
    async def crash() -> None:
        raise RuntimeError("the host application broke")

    app.include_router(guarded)
