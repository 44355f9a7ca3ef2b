"""The shape of a hub: what users of OpenAI's SDK see, from the first key to a revoked one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

from tests.example.shapes import Shape, ask, problem_of
from tests.helpers.tokens import forge, spoiled
from tests.helpers.waiting import until

if TYPE_CHECKING:
    import openai


@pytest.fixture
async def hub(open_shape: Callable[..., AbstractAsyncContextManager[Shape]]) -> AsyncIterator[Shape]:
    async with open_shape("hub") as shape:
        yield shape


async def test_sdk_lists_and_runs_models(hub: Shape) -> None:
    key = await hub.create_key("production-app")
    async with hub.sdk(key["token"]) as sdk:
        assert [model.id async for model in sdk.models.list()] == ["parrot-1"]
        assert await ask(sdk) == "Polly wants a cracker"


async def test_key_page_is_mounted_and_a_token_is_shown_once(hub: Shape) -> None:
    page = await hub.client.get("/settings/api-keys")
    assert (page.status_code, "Hub" in page.text) == (200, True)
    created = await hub.client.post(
        "/settings/api-keys/data/keys", json={"name": "dev-local", "expires_in_s": 86_400}, headers=hub.session
    )
    token = created.json()["token"]
    assert token.startswith("hub_live_")
    listed = await hub.client.get("/settings/api-keys/data/keys", headers=hub.session)
    assert [item["name"] for item in listed.json()["items"]] == ["dev-local"]
    assert token not in listed.text


async def test_restricted_key_is_refused_outside_its_permissions(hub: Shape) -> None:
    import openai

    key = await hub.create_key("ci-nightly", scopes=["models:read"])
    async with hub.sdk(key["token"]) as sdk:
        assert [model.id async for model in sdk.models.list()] == ["parrot-1"]
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await ask(sdk)
    assert refused.value.code == "insufficient_scope"
    assert refused.value.response.json()["missing_scopes"] == ["models:run"]


async def test_short_lived_key_of_a_job_expires_by_itself(hub: Shape) -> None:
    import openai

    key = await hub.create_key("ci-nightly", environment="ci", expires_in_s=1)
    assert key["token"].startswith("hub_ci_")
    problems: list[tuple[int, str | None, str]] = []

    async def is_refused(sdk: openai.AsyncOpenAI) -> bool:
        try:
            await sdk.models.list()
        except openai.AuthenticationError as error:
            problems.append(problem_of(error))
        return bool(problems)

    async with hub.sdk(key["token"]) as sdk:
        await until(lambda: is_refused(sdk))
    status, code, sentence = problems[0]
    assert (status, code) == (401, "expired_api_key")
    assert "expired" in sentence


@pytest.mark.parametrize(
    ("sent", "code", "hint"),
    [
        ("", "missing_api_key", "Send your API key"),
        ("{start}{end}", "missing_api_key", "without the word 'Bearer'"),
        ("Token {start}{end}", "missing_api_key", "the scheme 'Token'"),
        ("Bearer sk-0123456789", "missing_api_key", "hub_"),
        ("Bearer {start} {end}", "malformed_api_key", "white space"),
        ("Bearer {start}", "malformed_api_key", "cut off"),
        ("Bearer '{start}{end}'", "missing_api_key", "quotes"),
        ("Bearer {spoiled}", "malformed_api_key", "mistyped"),
        ("Bearer {unknown}", "invalid_api_key", "belongs to this service"),
    ],
)
async def test_refusal_says_what_is_wrong_with_the_header(hub: Shape, sent: str, code: str, hint: str) -> None:
    import openai

    token = (await hub.create_key())["token"]
    value = sent.format(start=token[:60], end=token[60:], spoiled=spoiled(token), unknown=forge(prefix="hub"))
    async with hub.sdk("unused", default_headers={"Authorization": value}) as sdk:
        with pytest.raises(openai.AuthenticationError) as refused:
            await sdk.models.list()
    assert refused.value.code == code
    assert hint in str(refused.value)
    assert token not in str(refused.value)
    challenges = refused.value.response.headers.get_list("www-authenticate")
    assert challenges[0].startswith('api-key realm="hub"')
    assert challenges[1].startswith('Bearer realm="hub"')


async def test_key_is_replaced_and_revoked(hub: Shape) -> None:
    import openai

    old, new = await hub.create_key("production-app"), await hub.create_key("production-app-2")
    await hub.revoke(old)
    async with hub.sdk(old["token"]) as sdk:
        with pytest.raises(openai.AuthenticationError) as refused:
            await sdk.models.list()
    assert problem_of(refused.value)[1] == "revoked_api_key"
    assert "revoked" in str(refused.value)
    async with hub.sdk(new["token"]) as sdk:
        assert await ask(sdk, "Hello") == "Hello"
