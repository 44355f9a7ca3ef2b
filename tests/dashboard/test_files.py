"""The page's files: complete, with a strict policy, cached until they change."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_keyauth import DashboardOptions, KeyAuth, KeyAuthSettings, SetupError
from fastapi_keyauth.http.dashboard.page import MEDIA_TYPES, Page
from tests.dashboard.site import FOLDER

MakeClient = Callable[..., httpx.AsyncClient]


def app_with(options: DashboardOptions | None = None, prefix: str = "/settings/api-keys") -> FastAPI:
    """An application with the page. It is not started: files need no database."""
    auth = KeyAuth(KeyAuthSettings(_env_file=None), dashboard=options)
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.dashboard_router, prefix=prefix)
    return app


def links_of(page: str) -> list[str]:
    return re.findall(r'(?:href|src)="([^"#][^"]*)"', page)


def options_of(page: str) -> dict[str, Any]:
    [content] = re.findall(r'name="keyauth-page" content="([^"]*)"', page)
    found: dict[str, Any] = json.loads(html.unescape(content))
    return found


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_page_and_all_its_files_have_a_strict_policy(make_client: MakeClient, slash: str) -> None:
    client = make_client(app_with())
    page = await client.get("/settings/api-keys" + slash)
    assert page.status_code == 200
    links = links_of(page.text)
    assert len(links) == len([path for path in FOLDER.rglob("*.*") if path.suffix in MEDIA_TYPES]) - 1
    for answer in [page, *[await client.get(str(page.url.join(link))) for link in links]]:
        assert answer.status_code == 200, answer.url
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ")
        assert "unsafe" not in policy
        for directive in ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
            assert directive in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "set-cookie" not in answer.headers


async def test_the_page_is_revalidated_and_its_files_are_cached(make_client: MakeClient) -> None:
    client = make_client(app_with())
    page = await client.get("/settings/api-keys/")
    assert page.headers["cache-control"] == "no-cache"
    [script] = [link for link in links_of(page.text) if link.endswith("/main.js")]
    kept = await client.get(str(page.url.join(script)))
    assert "immutable" in kept.headers["cache-control"]
    assert kept.headers["content-type"] == "text/javascript; charset=utf-8"
    another = await client.get("/settings/api-keys/assets/another-version/main.js")
    assert (another.content, another.headers["cache-control"]) == (kept.content, "no-store")


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "%2e%2e/page.py", "..%2fpage.py", "dialogs", "x" * 200])
async def test_no_other_file_is_served(make_client: MakeClient, name: str) -> None:
    answer = await make_client(app_with()).get(f"/settings/api-keys/assets/v/{name}")
    assert answer.status_code in (404, 422)


async def test_the_page_contains_no_inline_script_and_no_inline_style(make_client: MakeClient) -> None:
    page = (await make_client(app_with()).get("/settings/api-keys")).text
    assert not re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", page)


@pytest.mark.parametrize(
    ("asked", "log_in", "data"),
    [
        ("/settings/api-keys", "../log/in", "./api-keys/data/"),
        ("/settings/api-keys/", "../../log/in", "./data/"),
        ("/keys", "./log/in", "./keys/data/"),
        ("/a:b/c d/", "../../log/in", "./data/"),
        ("/a/c d:e", "../log/in", "./c%20d%3Ae/data/"),
    ],
)
def test_links_are_relative_to_the_page(asked: str, log_in: str, data: str) -> None:
    page = bytes(Page(DashboardOptions(log_in_path="/log/in")).page(asked).body).decode()
    known = options_of(page)
    assert (known["log_in_path"], known["data_path"]) == (log_in, data)
    assert all(link.startswith("./") for link in links_of(page))


async def test_links_of_a_mounted_application_stay_below_its_mount(make_client: MakeClient) -> None:
    outer = FastAPI()
    outer.mount("/admin/area", app_with(DashboardOptions(log_in_path="/login"), prefix="/keys"))
    client = make_client(outer)
    page = await client.get("/admin/area/keys/")
    assert options_of(page.text)["log_in_path"] == "../login"
    assert (await client.get(str(page.url.join(links_of(page.text)[0])))).status_code == 200


def test_values_of_the_options_cannot_break_out_of_the_page() -> None:
    options = DashboardOptions(product="\"><script>alert('&')</script>{{assets}}", stylesheet_path='/my".css')
    page = bytes(Page(options).page("/keys").body).decode()
    assert "<script>alert" not in page
    assert options_of(page)["product"] == options.product
    assert 'href="./my&quot;.css"' in page


@pytest.mark.parametrize(
    "options",
    [
        {"log_in_path": "login"},
        {"log_in_path": "//evil.example/login"},
        {"log_in_path": "/\\evil.example/login"},
        {"log_in_page": "https://evil.example/"},
        {"home_path": "javascript:alert(1)"},
        {"stylesheet_path": "/a\nb"},
        {"user_field": "e mail"},
        {"session_item": ""},
    ],
)
def test_invalid_options_stop_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match=f"DashboardOptions.{next(iter(options))}"):
        DashboardOptions(**options)


def test_files_of_the_page_are_short() -> None:
    """Scripts have the same maximum length as Python modules."""
    bounds = {".js": 200, ".css": 300, ".html": 60, ".svg": 10}
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in FOLDER.rglob("*.*")}
    assert [path.name for path, lines in lengths.items() if lines > bounds[path.suffix]] == []
