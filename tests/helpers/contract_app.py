"""The host application for the contract's tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Set
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response, Security, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from fastapi_keyauth import KeyAuth, KeyPrincipal, SessionPrincipal


class Note(BaseModel):
    text: str


def described(key: KeyPrincipal) -> dict[str, Any]:
    """Return a principal as JSON."""
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


@dataclass
class Group:
    """Routes that are added together: those at `paths`, or those at and below `/prefix`."""

    add: Callable[[], None]
    paths: Set[str] = frozenset()
    prefix: str | None = None
    is_taken_in: bool = False

    def has(self, path: str) -> bool:
        """Return whether this group alone has routes that match the path."""
        return path in self.paths or (self.prefix is not None and f"{path}/".startswith(f"{self.prefix}/"))


class HostApp(FastAPI):
    """An app that creates its routes on first use.

    Creating routes is the slowest part of creating an app, and most tests use few of them. A request for a path of a
    group creates that group alone (the management routes are one); any other path creates all.
    """

    def __init__(self, auth: KeyAuth) -> None:
        super().__init__()
        self._groups = [Group(lambda: self.include_router(auth.keys_router, prefix="/api-keys"), prefix="/api-keys")]
        auth.install(self)

    def take_in_later(self, paths: Set[str], add: Callable[[FastAPI, KeyAuth], None], auth: KeyAuth) -> None:
        """Register `add` to create the routes at `paths` on the first request for one of them."""
        self._groups.append(Group(lambda: add(self, auth), paths))

    def openapi(self) -> dict[str, Any]:
        """Return the schema of all routes, including those not yet created."""
        self._take_in(self._groups)
        return super().openapi()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self._take_in([group for group in self._groups if group.has(scope["path"])] or self._groups)
        await super().__call__(scope, receive, send)

    def _take_in(self, groups: list[Group]) -> None:
        for group in groups:
            if not group.is_taken_in:
                group.is_taken_in = True
                group.add()


def build_app(auth: KeyAuth) -> FastAPI:
    """Return an app with one route for each case in the contract."""
    app = HostApp(auth)
    app.take_in_later({"/models"}, add_models, auth)
    app.take_in_later({"/items", "/maybe", "/open", "/ws"}, add_other_key_routes, auth)
    app.take_in_later({"/asked-often"}, add_asked_often, auth)
    app.take_in_later({"/notes", "/scoped-notes", "/me", "/my-profile"}, add_session_routes, auth)
    app.take_in_later({"/stream", "/hand-made", "/teapot", "/validated", "/crash"}, add_odd_responses, auth)
    return app


def add_key_routes(app: FastAPI, auth: KeyAuth) -> None:
    """Add routes that check only the key."""
    add_models(app, auth)
    add_other_key_routes(app, auth)
    add_asked_often(app, auth)


def add_models(app: FastAPI, auth: KeyAuth) -> None:
    """Add the route that most tests use."""

    @app.get("/models")
    async def models(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> dict[str, Any]:
        return described(key)


def add_other_key_routes(app: FastAPI, auth: KeyAuth) -> None:
    """Add routes with a scope, with an optional key, without a key, and with a WebSocket."""

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

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> None:
        await websocket.accept()
        await websocket.send_json({"id": key.id})
        await websocket.close()


def add_asked_often(app: FastAPI, auth: KeyAuth) -> None:
    """Add one route that requires the key in every possible way together."""

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


def add_session_routes(app: FastAPI, auth: KeyAuth) -> None:
    """Add routes that check a session, with or without a key."""

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
    """Add responses that FastAPI does not build from a return value."""
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
