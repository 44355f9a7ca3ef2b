"""The wheel, installed with nothing but what it requires."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastapi_keyauth import TOKEN_PATTERN
from tests.helpers.packages import PROJECT, ROOT, VERSION, CleanEnvironment, build

CREATE_AND_VERIFY = """
import asyncio, json, sys
from typing import Annotated
from fastapi import Depends, FastAPI
from fastapi_keyauth import KeyAuth, KeyAuthSettings, KeyPrincipal

auth = KeyAuth(KeyAuthSettings(database_url="sqlite+aiosqlite:///keyauth.db"))
app = FastAPI()
auth.install(app)
app.include_router(auth.dashboard_router, prefix="/page")

@app.get("/models")
async def models(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
    return key.name

async def get(path, *headers):
    answer = {"status": 0, "body": ""}
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
             "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": list(headers),
             "client": ("127.0.0.1", 1), "server": ("localhost", 80), "state": {}}
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        answer["status"] = message.get("status", answer["status"])
        answer["body"] += message.get("body", b"").decode()
    await app(scope, receive, send)
    return answer

async def main():
    async with app.router.lifespan_context(app):
        token = (await auth.keys.create(owner_id="ada", name="first")).token
        header = (b"api-key", token.encode())
        print(json.dumps([await get("/models", header), await get("/models"), await get("/page")]))

asyncio.run(main())
"""

IMPORT_ALL = """
import importlib, pkgutil, fastapi_keyauth
modules = [module.name for module in pkgutil.walk_packages(fastapi_keyauth.__path__, "fastapi_keyauth.")]
# pytest imports the first, Python runs the second, and Alembic runs the third.
skipped = ("fastapi_keyauth.pytest_plugin", "fastapi_keyauth.cli.__main__", "fastapi_keyauth.store.migrations.env")
for name in modules:
    if name not in skipped:
        importlib.import_module(name)
print(len(modules))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of the working tree."""
    return build(ROOT, tmp_path_factory.mktemp("dist"), "wheel")[0]


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    """Return an environment with the wheel and no extra."""
    return CleanEnvironment(tmp_path_factory.mktemp("plain"), wheel)


@pytest.fixture(scope="module")
def with_cli(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    """Return an environment with the wheel and its extra cli."""
    return CleanEnvironment(tmp_path_factory.mktemp("cli"), wheel, ["cli"])


def test_the_package_is_imported_from_the_wheel(plain: CleanEnvironment) -> None:
    file = plain.execute("import fastapi_keyauth; print(fastapi_keyauth.__file__)").strip()
    assert Path(file).is_relative_to(plain.folder)


def test_a_key_is_created_and_verified_without_any_extra(plain: CleanEnvironment) -> None:
    admitted, refused, page = json.loads(plain.execute(CREATE_AND_VERIFY))
    assert (admitted["status"], json.loads(admitted["body"])) == (200, "first")
    assert (refused["status"], json.loads(refused["body"])["code"]) == (401, "missing_api_key")
    assert page["status"] == 200
    assert "<html" in page["body"]


def test_the_command_line_names_its_extra_if_it_is_missing(plain: CleanEnvironment) -> None:
    assert "extra 'cli'" in plain.script("keyauth", "--help", code=3).stderr


def test_the_command_line_runs_with_its_extra(with_cli: CleanEnvironment) -> None:
    assert "Create a key" in with_cli.script("keyauth", "keys", "--help").stdout
    assert with_cli.script("keyauth", "--version").stdout.split() == ["fastapi-keyauth", VERSION]
    with_cli.script("keyauth", "db", "upgrade")
    token = with_cli.script("keyauth", "keys", "create", "--owner", "ada", "--name", "first").stdout.strip()
    assert TOKEN_PATTERN.fullmatch(token)
    assert "first" in with_cli.script("keyauth", "keys", "show", token.split("_")[2]).stdout


def test_every_module_imports_only_what_the_extras_require(wheel: Path, tmp_path: Path) -> None:
    everything = CleanEnvironment(tmp_path, wheel, list(PROJECT["optional-dependencies"]))
    assert int(everything.execute(IMPORT_ALL)) > 100
