"""Section 2: refusals as users of the OpenAI and Anthropic SDKs see them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.helpers.served import served
from tests.helpers.stage import OpenScene, Scene
from tests.helpers.tokens import forge

# What is checked here does not depend on the store and the limiter.
STACKS = ("sqlite-memory",)

LIMIT = 1


@dataclass(frozen=True)
class Seen:
    """An SDK's exception: its text, the code, the vendor's type, and the HTTP response."""

    text: str
    code: Any
    type: Any
    response: Any


async def call_openai(url: str, api_key: str) -> Seen | None:
    import openai

    async with openai.AsyncOpenAI(api_key=api_key, base_url=url) as client:
        try:
            await client.models.list()
        except openai.APIStatusError as error:
            return Seen(str(error), error.code, error.type, error.response)
    return None


async def call_anthropic(url: str, api_key: str) -> Seen | None:
    import anthropic

    # Anthropic's SDK sends `x-api-key`, unless it is given a token for Authorization.
    async with anthropic.AsyncAnthropic(auth_token=api_key, api_key="", base_url=url) as client:
        try:
            await client.get("/models", cast_to=object)
        except anthropic.APIStatusError as error:
            body: Any = error.body
            return Seen(str(error), body["error"]["code"], body["error"]["type"], error.response)
    return None


CALLS = {"openai": call_openai, "anthropic": call_anthropic}
Call = Callable[[str, str], Awaitable[Seen | None]]


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Call:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    chosen: Call = CALLS[request.param]
    return chosen


@asynccontextmanager
async def serve(open_scene: OpenScene, **settings: Any) -> AsyncIterator[tuple[Scene, str]]:
    async with open_scene(**settings) as scene, served(scene.app, "h11") as port:
        yield scene, f"http://127.0.0.1:{port}"


async def test_a_valid_key_is_admitted(open_scene: OpenScene, call: Call) -> None:
    async with serve(open_scene) as (scene, url):
        assert await call(url, (await scene.key()).token) is None


@pytest.mark.parametrize(
    ("refusal", "status", "code", "error_type"),
    [
        ("malformed", 401, "malformed_api_key", "authentication_error"),
        ("unknown", 401, "invalid_api_key", "authentication_error"),
        ("revoked", 401, "revoked_api_key", "authentication_error"),
        ("limited", 429, "rate_limit_exceeded", "rate_limit_error"),
        ("blocked", 429, "address_blocked", "rate_limit_error"),
    ],
)
async def test_users_see_the_sentence_and_the_code_without_waiting(
    open_scene: OpenScene, call: Call, refusal: str, status: int, code: str, error_type: str
) -> None:
    async with serve(open_scene, block_after_failures=2) as (scene, url):
        key = await scene.key(hourly_limit=LIMIT)
        token = {"malformed": key.token[:-3], "unknown": forge()}.get(refusal, key.token)
        if refusal == "revoked":
            await scene.auth.keys.revoke(key.id)
        elif refusal == "limited":
            assert await scene.spend(key.token, LIMIT) == [200]
        elif refusal == "blocked":
            await scene.fail(2, address="127.0.0.1")
        seen = await call(url, token)
        assert seen is not None
        body = seen.response.json()
        assert seen.response.status_code == status
        assert body["detail"] in seen.text
        assert (seen.code, seen.type) == (code, error_type)
        assert seen.response.headers.get("x-should-retry") == ("false" if status == 429 else None)


async def test_every_refusal_has_the_error_member(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        narrow = await scene.key(scopes=[])
        answers = [
            await scene.get(),
            await scene.get("/items", token=narrow.token),
            await scene.get("/me"),
            await scene.get("/api-keys/0123456789Ab", bearer=await scene.session()),
        ]
    assert [answer.status_code for answer in answers] == [401, 403, 401, 404]
    for answer in answers:
        body = answer.json()
        assert set(body["error"]) == {"message", "type", "code"}
        assert (body["error"]["message"], body["error"]["code"]) == (body["detail"], body["code"])


@pytest.mark.parametrize(("wait_s", "advice"), [(60, None), (61, "false")])
async def test_sdks_may_wait_up_to_a_minute(open_scene: OpenScene, wait_s: int, advice: str | None) -> None:
    async with open_scene(block_after_failures=1, block_for_s=wait_s) as scene:
        await scene.fail()
        answer = await scene.get(token=forge())
        assert answer.headers["retry-after"] == str(wait_s)
        assert answer.headers.get("x-should-retry") == advice
