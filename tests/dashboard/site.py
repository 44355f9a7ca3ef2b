"""A product with the key page, served by a real uvicorn in a thread, for all the browser tests of a session."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import BaseModel
from sqlalchemy import insert, update
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

import fastapi_keyauth
from fastapi_keyauth import CreatedKey, DashboardOptions, KeyAuth, KeyAuthSettings, SessionPrincipal
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.store import Usage
from fastapi_keyauth.store.tables import EventRow, KeyRow, SecretRow, UsageClosingRow, table
from tests.dashboard.server import Server

FOLDER = Path(fastapi_keyauth.__file__).parent / "http" / "dashboard" / "static"

PAGE = "/settings/api-keys"
BLANK = "/blank"
PASSWORD = "correct horse battery"
SCOPES = {
    "completions:write": "Ask the model",
    "files:read": "Read uploaded files",
    "files:write": "Upload and delete files",
}
CHEAP_HASHING = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "argon2_parallelism": 1}
T = TypeVar("T")


class Login(BaseModel):
    """Who, and how they prove it."""

    email: str
    password: str


def build_product(auth: KeyAuth) -> FastAPI:
    """An application that logs people in by itself, with the key page and nothing that a browser asks for beside it."""
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.dashboard_router, prefix=PAGE)

    @app.post("/login")
    async def log_in(who: Login) -> dict[str, str]:
        if who.password != PASSWORD:
            raise HTTPException(401, "Email or password is wrong.")
        return {"session_token": await auth.sessions.create(who.email)}

    @app.post("/token")
    async def issue_token(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
        if form.password != PASSWORD:
            raise HTTPException(400, "Incorrect username or password")
        return {"access_token": await auth.sessions.create(form.username), "token_type": "bearer"}

    @app.post("/logout", status_code=204, dependencies=[Depends(auth.require_session)])
    async def log_out(request: Request) -> None:
        await auth.sessions.revoke(auth.session_token(request) or "")

    @app.get("/v1/models", dependencies=[Depends(auth.require_key)])
    async def models() -> list[str]:
        return ["parrot-1"]

    @app.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    @app.get(BLANK, response_class=HTMLResponse)
    async def blank() -> str:
        return "<!doctype html>"

    return app


def fake_jwt(user: str) -> str:
    """A token of the form that log-in services give out. Nobody checks its signature here."""
    parts = ({"alg": "none"}, {"sub": user})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".sig"


async def resolve_jwt(token: str, _connection: HTTPConnection) -> SessionPrincipal | None:
    """The session behind `fake_jwt`."""
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    except (ValueError, IndexError):
        return None
    return SessionPrincipal(user_id=claims["sub"])


class Site:
    """Three addresses of one product, and four more products.

    `url`: as it is. `url` + "/stripped": behind a proxy that takes the prefix away and says nothing. `url` + "/told":
    behind one that says it, as `root_path`. `url` + "/jwt": a product whose sessions are JWTs and that has no log-in
    of its own. `url` + "/oauth2": a product with the login of FastAPI's tutorial. `url` + "/projects": a product whose
    keys belong to projects; `members` says who may act for which. `url` + "/lifetimes": a product with a policy for the
    lifetime of keys, and with limits of owners by default.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.auth = self._make_auth(
            "product",
            scopes=SCOPES,
            dashboard=DashboardOptions(
                product="Parrot AI",
                home_path="/",
                log_in_path="/login",
                log_out_path="/logout",
                example_path="/v1/models",
            ),
        )
        self.jwt_auth = self._make_auth(
            "jwt", session_resolver=resolve_jwt, dashboard=DashboardOptions(session_item="jwt")
        )
        self.oauth2_auth = self._make_auth("oauth2", dashboard=DashboardOptions(log_in_path="/token", log_in_form=True))
        self.members: dict[str, dict[str, list[str]]] = {}
        self.projects_auth = self._make_auth(
            "projects",
            owners_of=self._find_owners,
            scopes=SCOPES,
            units=["tokens"],
            dashboard=DashboardOptions(product="Parrot AI"),
        )
        self.lifetimes_auth = self._make_auth(
            "lifetimes",
            scopes=SCOPES,
            max_key_ttl_s=45 * 86_400,
            disable_unused_after_days=120,
            default_owner_limits=[{"name": "year", "limit": 1_000_000, "per": 31_536_000}],
        )
        others = (self.jwt_auth, self.oauth2_auth, self.projects_auth, self.lifetimes_auth)
        self._server = Server(self._build(), self.auth, *others)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._open_days(self.auth)
        self._open_days(self.projects_auth)

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something of the product's in its own event loop."""
        return self._server.run(work)

    def create_key(self, owner: str, name: str = "test key", **fields: Any) -> CreatedKey:
        """A key of somebody's."""
        return self.run(self.auth.keys.create(owner, name, **fields))

    def set_times(self, key_id: str, **columns: Any) -> None:
        """Write times of a key into its row, as if they had passed."""
        row = table(KeyRow)
        self._execute(update(row).where(row.c.id == key_id).values(**columns))
        if "created_at" in columns:
            event = table(EventRow)
            created = (event.c.key_id == key_id) & (event.c.event == "created")
            self._execute(update(event).where(created).values(at=columns["created_at"]))
            secret = table(SecretRow)
            oldest = (secret.c.key_id == key_id) & (secret.c.created_at > columns["created_at"])
            self._execute(update(secret).where(oldest).values(created_at=columns["created_at"]))

    def copy_key(self, created: CreatedKey, many: int) -> None:
        """Insert copies of a key named ``key 0001`` and so on, in one transaction."""

        async def copy() -> None:
            async with self.auth._parts.database.write() as connection:
                for rows, name in ((table(KeyRow), "id"), (table(SecretRow), "key_id")):
                    found = await connection.execute(rows.select().where(rows.c[name] == created.key.id))
                    row = found.mappings().one()
                    copies = []
                    for number in range(1, many + 1):
                        fresh = {**row, name: f"{created.key.id[:8]}{number:04}"}
                        fresh.update({"id": None} if name == "key_id" else {"name": f"key {number:04}"})
                        copies.append(fresh)
                    await connection.execute(rows.insert(), copies)

        self.run(copy())

    def use_secret(self, key_id: str, hint: str, at: datetime) -> None:
        """As if the secret with that hint had been used then."""
        secret = table(SecretRow)
        which = (secret.c.key_id == key_id) & (secret.c.last4 == hint[-4:])
        self._execute(update(secret).where(which).values(last_used_at=at))
        self.set_times(key_id, last_used_at=at)

    def add_usage(
        self, key_id: str, counts: dict[int, tuple[int, int]], unit: str = REQUESTS, auth: KeyAuth | None = None
    ) -> None:
        """Add usage of a key: {hours ago: (admitted, refused)}."""
        self.add_usage_of_keys({key_id: counts}, unit, auth)

    def add_usage_of_keys(
        self, keys: dict[str, dict[int, tuple[int, int]]], unit: str = REQUESTS, auth: KeyAuth | None = None
    ) -> None:
        """Add usage of many keys in one batch, so that no day is closed between two of them."""
        this_hour = int(datetime.now(UTC).timestamp()) // 3600
        all_counts = [(id, this_hour - ago, count) for id, counts in keys.items() for ago, count in counts.items()]
        units = {(key_id, hour, unit): admitted for key_id, hour, (admitted, _) in all_counts}
        refused = {(key_id, hour): number for key_id, hour, (_, number) in all_counts}
        writer = secrets.token_hex(8)  # each call is a batch of its own
        usage_store = (auth or self.auth).keys._queries._usage
        self.run(usage_store.write(Usage(units, refused), [], writer, 1, datetime.now(UTC)))

    def _open_days(self, auth: KeyAuth) -> None:
        """Open the days of a year, and close none of them: what is added to a closed day counts on the first open one.

        Otherwise the first usage that a test adds would begin the days of all tests.
        """
        auth._parts.day_closer._now = lambda: ago(days=365)
        day = (ago(days=364) - datetime.fromtimestamp(0, UTC)).days
        begun = insert(table(UsageClosingRow)).values(prefix=auth.settings.key_prefix, since=day, open_day=day)
        self._execute(begun, auth)

    def close_days(self) -> None:
        """Close the days that are over. What is added from now on counts as today's."""
        closer = self.auth._parts.day_closer
        closer._now = lambda: datetime.now(UTC)
        self.run(closer.close_due_days())

    async def _find_owners(self, user: SessionPrincipal) -> dict[str, list[str]]:
        return self.members.get(user.user_id, {})

    def _execute(self, statement: Any, auth: KeyAuth | None = None) -> None:
        async def execute() -> None:
            async with (auth or self.auth)._parts.database.write() as connection:
                await connection.execute(statement)

        self.run(execute())

    def _make_auth(self, name: str, **options: Any) -> KeyAuth:
        collaborators = {
            part: options.pop(part) for part in ("session_resolver", "dashboard", "owners_of") if part in options
        }
        database = f"sqlite+aiosqlite:///{self._folder / name}.db"
        settings = KeyAuthSettings(
            _env_file=None, database_url=database, max_keys_per_owner=2000, **CHEAP_HASHING, **options
        )
        return KeyAuth(settings, **collaborators)

    def _build(self) -> ASGIApp:
        product = build_product(self.auth)
        jwt_product = build_product(self.jwt_auth)
        oauth2_product = build_product(self.oauth2_auth)
        projects_product = build_product(self.projects_auth)
        lifetimes_product = build_product(self.lifetimes_auth)

        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            path: str = scope["path"]
            app: ASGIApp = product
            if path.startswith("/stripped/"):
                scope = {**scope, "path": path.removeprefix("/stripped")}
            elif path.startswith("/told/"):
                scope = {**scope, "root_path": "/told"}
            elif path.startswith("/jwt/"):
                app, scope = jwt_product, {**scope, "root_path": "/jwt"}
            elif path.startswith("/oauth2/"):
                app, scope = oauth2_product, {**scope, "root_path": "/oauth2"}
            elif path.startswith("/projects/"):
                app, scope = projects_product, {**scope, "root_path": "/projects"}
            elif path.startswith("/lifetimes/"):
                app, scope = lifetimes_product, {**scope, "root_path": "/lifetimes"}
            await app(scope, receive, send)

        return dispatch


def ago(**how_long: float) -> datetime:
    """A moment in the past."""
    return datetime.now(UTC) - timedelta(**how_long)
