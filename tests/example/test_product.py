"""The shape of a product: keys in a header, sessions for users, browsers, hourly limits and blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.example.shapes import Shape
from tests.helpers.processes import stay_within_the_hour
from tests.helpers.tokens import forge

SHOP = "https://shop.example"
EVIL = "https://evil.example"
CHALLENGE = 'api-key realm="product"'


@pytest.fixture
async def product(open_shape: Callable[..., AbstractAsyncContextManager[Shape]]) -> AsyncIterator[Shape]:
    async with open_shape("product") as shape:
        yield shape


async def read(product: Shape, token: str | None = None, **headers: str) -> httpx.Response:
    """Read the catalogue with a key."""
    key = {} if token is None else {"api-key": token}
    return await product.client.get("/catalogue", headers=key | headers)


async def test_key_identifies_the_project_and_is_stored_as_a_hash(product: Shape, tmp_path: Path) -> None:
    key = await product.create_key("web shop")
    assert (key["owner_id"], key["hourly_limit"]) == ("project-7", 1000)
    token: str = key["token"]
    answer = await read(product, token)
    assert (answer.status_code, answer.json()) == (200, ["a chair", "a table"])
    assert answer.headers["RateLimit"].startswith('"hour";r=999;')
    listed = await product.client.get("/api-keys", headers=product.session)
    assert token not in listed.text
    with closing(sqlite3.connect(tmp_path / "keyauth.db")) as database:
        stored = "\n".join(database.iterdump())
    assert "$argon2id$" in stored
    assert token.rpartition("_")[2][:43] not in stored


async def test_key_from_code_works_like_one_from_the_dashboard(product: Shape) -> None:
    created = await product.module.auth.keys.create("project-7", "from code")
    assert (await read(product, created.token)).status_code == 200
    page = await product.client.get("/settings/api-keys")
    assert (page.status_code, "Shop" in page.text) == (200, True)


async def test_order_requires_the_session_of_a_user_too(product: Shape) -> None:
    key = {"api-key": (await product.create_key())["token"]}
    alone = await product.client.post("/orders", headers=key)
    assert (alone.status_code, alone.json()["code"]) == (403, "session_required")
    wrong = await product.client.post("/orders", headers=key | {"Authorization": "Bearer expired"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_session")
    both = await product.client.post("/orders", headers=key | product.session)
    assert (both.status_code, both.json()) == (201, {"ordered_by": "ada", "project": "project-7"})


@pytest.mark.parametrize(
    ("fields", "headers", "code", "hint"),
    [
        ({}, {}, "missing_api_key", "'api-key' header"),
        ({}, {"Authorization": "Bearer {token}"}, "missing_api_key", "not accepted in the Authorization header"),
        ({}, {"x-api-key": "{token}"}, "missing_api_key", "'x-api-key' header is not read"),
        ({}, {"api-key": "{token}x"}, "malformed_api_key", "additional characters"),
        ({}, {"api-key": "{unknown}"}, "invalid_api_key", "belongs to this service"),
        ({"allowed_origins": [SHOP]}, {"api-key": "{token}", "Origin": EVIL}, "origin_not_allowed", "this origin"),
        ({"allowed_ips": ["192.0.2.0/24"]}, {"api-key": "{token}"}, "address_not_allowed", "address"),
    ],
)
async def test_refusal_has_a_challenge_and_a_hint(
    product: Shape, fields: dict[str, Any], headers: dict[str, str], code: str, hint: str
) -> None:
    key = await product.create_key(**fields)
    sent = {name: value.format(token=key["token"], unknown=forge(prefix="shop")) for name, value in headers.items()}
    answer = await product.client.get("/catalogue", headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["WWW-Authenticate"] == CHALLENGE
    assert hint in answer.json()["detail"]


async def test_browsers_may_read_only_from_allowed_origins(product: Shape) -> None:
    key = await product.create_key(allowed_origins=[SHOP])
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "api-key"}
    preflight = await product.client.options("/catalogue", headers=asked)
    assert (preflight.status_code, preflight.headers["Access-Control-Allow-Origin"]) == (204, SHOP)
    answer = await read(product, key["token"], Origin=SHOP)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, SHOP)
    assert "Access-Control-Allow-Credentials" not in answer.headers
    front_end = await read(product, (await product.create_key())["token"], Origin="https://app.example")
    assert front_end.headers["Access-Control-Allow-Origin"] == "https://app.example"
    elsewhere = await read(product, key["token"], Origin=EVIL)
    assert elsewhere.status_code == 401
    assert "Access-Control-Allow-Origin" not in elsewhere.headers
    from_a_server = await read(product, key["token"])
    assert from_a_server.status_code == 200


async def test_both_429_say_which_one_they_are(product: Shape) -> None:
    stay_within_the_hour()
    key = await product.create_key(hourly_limit=1)
    assert (await read(product, key["token"])).status_code == 200
    used_up = await read(product, key["token"])
    assert (used_up.status_code, used_up.json()["code"]) == (429, "rate_limit_exceeded")
    wrong = [await read(product, "copied wrongly") for _ in range(10)]
    assert {answer.status_code for answer in wrong} == {401}
    blocked = await read(product, key["token"])
    assert (blocked.status_code, blocked.json()["code"]) == (429, "address_blocked")
    for answer in (used_up, blocked):
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["retry_after_s"] == int(answer.headers["Retry-After"])
    assert "is valid, but its limit of 1 requests per hour is used up" in used_up.json()["detail"]
    assert "Too many requests with an invalid API key came from your address" in blocked.json()["detail"]
    assert (await read(product)).json()["code"] == "missing_api_key"


async def test_missing_header_is_not_a_failed_attempt(product: Shape) -> None:
    key = await product.create_key()
    for unset in ({}, {"api-key": ""}, {"api-key": "undefined"}):
        answers = [await product.client.get("/catalogue", headers=unset) for _ in range(12)]
        assert {answer.status_code for answer in answers} == {401}
    assert (await read(product, key["token"])).status_code == 200


async def test_usage_is_reported_by_key(product: Shape) -> None:
    key = await product.create_key("web shop")
    assert (await read(product, key["token"])).status_code == 200
    report = await product.client.get("/api-keys/usage", params={"by": "key"}, headers=product.session)
    assert [(item["key_id"], item["units"]) for item in report.json()["items"]] == [(key["id"], {"requests": 1})]
