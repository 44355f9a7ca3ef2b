"""The shape of a service that rotates: keys are replaced without downtime, and revocation is immediate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

from tests.example.shapes import LONG, Shape, ask, problem_of
from tests.helpers.waiting import until

if TYPE_CHECKING:
    import openai


@pytest.fixture
async def service(open_shape: Callable[..., AbstractAsyncContextManager[Shape]]) -> AsyncIterator[Shape]:
    async with open_shape("rotation") as shape:
        yield shape


async def rotate(service: Shape, key: dict[str, Any], overlap_s: int) -> str:
    """Return the new token of a key."""
    url = f"/api-keys/{key['id']}/rotate"
    answer = await service.client.post(url, json={"overlap_s": overlap_s}, headers=service.session)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def refusal_of(service: Shape, token: str) -> tuple[int, str | None, str] | None:
    """Return how a token is refused, as the SDK shows it. None if it is admitted."""
    import openai

    async with service.sdk(token) as sdk:
        try:
            await ask(sdk, "Hello")
        except openai.AuthenticationError as error:
            return problem_of(error)
    return None


async def test_both_tokens_work_until_the_old_one_is_no_longer_used(service: Shape) -> None:
    key = await service.create_key("prod-api-server")
    assert await refusal_of(service, key["token"]) is None
    new = await rotate(service, key, 3600)
    assert await refusal_of(service, key["token"]) is None
    assert await refusal_of(service, new) is None

    async def are_both_uses_recorded() -> bool:
        found = (await service.client.get(f"/api-keys/{key['id']}", headers=service.session)).json()
        assert len(found["secrets"]) == 2
        return all(secret["last_used_at"] for secret in found["secrets"])

    await until(are_both_uses_recorded)


async def test_replaced_token_is_refused_as_expired_once_the_overlap_is_over(service: Shape) -> None:
    key = await service.create_key("staging-worker")
    new = await rotate(service, key, 0)
    refusal = await refusal_of(service, key["token"])
    assert refusal is not None
    assert refusal[:2] == (401, "expired_api_key")
    assert await refusal_of(service, new) is None


async def test_create_deploy_verify_and_revoke_the_old_key(service: Shape) -> None:
    old, new, other = [await service.create_key(name) for name in ("prod-api-server", "prod-api-server-2", "staging")]
    assert await refusal_of(service, new["token"]) is None
    await service.revoke(old)
    refusal = await refusal_of(service, old["token"])
    assert refusal is not None
    assert refusal[:2] == (401, "revoked_api_key")
    assert "revoked" in refusal[2]
    for undisturbed in (new, other):
        assert await refusal_of(service, undisturbed["token"]) is None


async def test_stream_ends_with_the_revocation_of_its_key(service: Shape) -> None:
    import openai

    key = await service.create_key("prod-api-server")
    words: list[str | None] = []

    async def stream(sdk: openai.AsyncOpenAI) -> None:
        async for chunk in await sdk.chat.completions.create(
            model="parrot-1", messages=[{"role": "user", "content": LONG}], max_tokens=500, stream=True
        ):
            words.append(chunk.choices[0].delta.content)
            if len(words) == 2:
                await service.revoke(key)

    async with service.sdk(key["token"]) as sdk:
        with pytest.raises(openai.APIError) as ended:
            await stream(sdk)
    assert words[:2] == ["0 ", "1 "]
    assert len(words) < 500
    assert ended.value.code == "revoked_api_key"
    assert "revoked" in str(ended.value)


async def test_request_that_waits_for_its_answer_gets_the_401(service: Shape) -> None:
    import openai

    key, other = await service.create_key("prod-api-server"), await service.create_key("staging-worker")
    async with service.sdk(key["token"]) as sdk, service.sdk(other["token"]) as undisturbed:
        waiting = asyncio.create_task(ask(sdk, LONG))
        assert await ask(undisturbed) == "Polly wants a cracker"
        await service.revoke(key)
        with pytest.raises(openai.AuthenticationError) as refused:
            await waiting
    assert refused.value.code == "revoked_api_key"


async def test_leaked_and_forgotten_keys_are_found(service: Shape) -> None:
    leaked = await service.create_key("local-dev-alice")
    await service.create_key("prod-api-server")
    for sought in (leaked["token"], leaked["hint"], "alice"):
        found = await service.client.get("/api-keys", params={"q": sought}, headers=service.session)
        assert [key["name"] for key in found.json()["items"]] == ["local-dev-alice"]
    unused = await service.client.get("/api-keys", params={"unused_for_days": 90}, headers=service.session)
    assert unused.json()["items"] == []
    audit = (await service.client.get("/api-keys/audit", headers=service.session)).json()
    assert {item["finding"] for item in audit["items"]} >= {"never_used", "never_expires"}
    events = (await service.client.get(f"/api-keys/{leaked['id']}/events", headers=service.session)).json()
    assert [(event["event"], event["actor"]) for event in events["items"]] == [("created", "user:ada")]
