"""The model of the example: tokens are reserved and settled, and what is running ends with its key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import websockets
from fastapi import FastAPI

from tests.example.people import bearer, create_key, log_in
from tests.example.shapes import LONG
from tests.helpers.served import served
from tests.helpers.session import Servers
from tests.helpers.waiting import until

if TYPE_CHECKING:
    import openai

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
FREE = 10_000
"""Tokens of the free plan."""


@pytest.fixture(params=[None, "valkey"], ids=["memory", "valkey"], autouse=True)
def _limiter(request: pytest.FixtureRequest, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose the limiter as a user does, before the example is imported."""
    if request.param:
        monkeypatch.setenv("KEYAUTH_REDIS_URL", servers.fresh_redis_url(request.param))
        monkeypatch.setenv("KEYAUTH_REDIS_TIMEOUT_S", "10")  # a busy machine is no outage


@pytest.fixture
async def client(_limiter: None, example_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the example on a loopback port."""
    async with (
        served(example_app, "httptools") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield client


@pytest.fixture
async def session(client: httpx.AsyncClient) -> str:
    return await log_in(client)


def sdk(client: httpx.AsyncClient, key: dict[str, Any]) -> openai.AsyncOpenAI:
    """Return OpenAI's SDK, as a user sets it up."""
    import openai

    return openai.AsyncOpenAI(api_key=key["token"], base_url=f"{client.base_url}/v1", max_retries=0)


async def tokens_left(client: httpx.AsyncClient, key: dict[str, Any]) -> int:
    """Return what is left of the team's tokens."""
    limits = (await client.get("/api-keys/owners/current", headers={"api-key": key["token"]})).json()["limits"]
    return next(int(limit["remaining"]) for limit in limits if limit["name"] == "tokens")


async def stream(model: openai.AsyncOpenAI, content: str, max_tokens: int = 500) -> AsyncIterator[str]:
    """Yield the words of an answer."""
    async for chunk in await model.chat.completions.create(
        model="parrot-1", messages=[{"role": "user", "content": content}], max_tokens=max_tokens, stream=True
    ):
        yield (chunk.choices[0].delta.content or "").strip()


async def test_answer_is_charged_by_its_tokens(client: httpx.AsyncClient, session: str) -> None:
    key = await create_key(client, session)
    async with sdk(client, key) as model:
        assert [word async for word in stream(model, "Polly wants a cracker")] == ["Polly", "wants", "a", "cracker"]
        await until(lambda: is_left(client, key, FREE - 8))
        whole = await model.chat.completions.create(
            model="parrot-1", messages=[{"role": "user", "content": "Polly wants a cracker"}]
        )
    assert whole.choices[0].message.content == "Polly wants a cracker"
    assert await tokens_left(client, key) == FREE - 16
    report = await client.get("/api-keys/usage", params={"by": "unit"}, headers=bearer(session))
    assert {item["unit"]: item["units"][item["unit"]] for item in report.json()["items"]} == {
        "requests": 2,
        "tokens": 16,
    }


async def is_left(client: httpx.AsyncClient, key: dict[str, Any], count: int) -> bool:
    """Return whether that many tokens are left: a stream is settled after its last byte."""
    return await tokens_left(client, key) == count


async def test_client_that_hangs_up_is_charged_for_what_it_got(client: httpx.AsyncClient, session: str) -> None:
    key = await create_key(client, session)
    async with sdk(client, key) as model:
        chunks = await model.chat.completions.create(
            model="parrot-1", messages=[{"role": "user", "content": LONG}], max_tokens=500, stream=True
        )
        async for _ in chunks:
            break
        assert await tokens_left(client, key) == FREE - 1000
        await chunks.close()

    async def is_settled() -> bool:
        return await tokens_left(client, key) > FREE - 1000

    await until(is_settled)
    assert FREE - 1000 < await tokens_left(client, key) < FREE - 500


async def test_answer_beyond_a_limit_is_refused_before_it_starts(client: httpx.AsyncClient, session: str) -> None:
    import openai

    few = {"name": "few", "limit": 50, "per": "day", "unit": "tokens"}
    key = await create_key(client, session, hourly_limit=1000, limits=[few])
    async with sdk(client, key) as model:
        with pytest.raises(openai.RateLimitError) as refused:
            _ = [word async for word in stream(model, "Hello", max_tokens=50)]
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.json()["violated-policies"] == ["few"]
        assert [word async for word in stream(model, "Hello", max_tokens=49)] == ["Hello"]


async def test_stream_and_websocket_end_with_their_key(client: httpx.AsyncClient, session: str) -> None:
    import openai

    key = await create_key(client, session)
    has_begun = asyncio.Event()

    async def listen(model: openai.AsyncOpenAI) -> None:
        async for _ in stream(model, LONG):
            has_begun.set()

    address = f"ws{str(client.base_url).removeprefix('http')}/v1/echo"
    async with (
        sdk(client, key) as model,
        websockets.connect(address, additional_headers={"api-key": key["token"]}, proxy=None) as websocket,
    ):
        assert await websocket.recv() == "Hello, test"
        listening = asyncio.create_task(listen(model))
        await has_begun.wait()
        assert (await client.delete(f"/api-keys/{key['id']}", headers=bearer(session))).status_code == 204
        with pytest.raises(openai.APIError) as ended:
            await listening
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await websocket.recv()
    assert ended.value.code == "revoked_api_key"
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "revoked_api_key")
    other = await create_key(client, session)

    async def is_settled() -> bool:
        return await tokens_left(client, other) > FREE - 1000

    await until(is_settled)
