"""Section 1: responses to values that are not a key, and which of them are failed attempts."""

import pytest
from starlette.requests import HTTPConnection

from fastapi_keyauth import SessionPrincipal
from tests.helpers.asgi import call
from tests.helpers.stage import OpenScene, code_of
from tests.helpers.tokens import NO_TOKEN, forge, secret_of

# What is checked here happens before the store and the limiter, so one stack says it all.
STACKS = ("sqlite-memory",)

TOKEN = forge()


@pytest.mark.parametrize("change", [str, str.upper, str.lower])
async def test_a_placeholder_is_named_and_is_not_a_failed_attempt(open_scene: OpenScene, change: type[str]) -> None:
    names = ("undefined", "null", "None", "nil", "YOUR_API_KEY", "$NAME", "${NAME}", "{{NAME}}", "<your key>")
    async with open_scene(block_after_failures=1) as scene:
        for sent in map(change, names * 2):
            answer = await scene.get(token=sent)
            assert (answer.status_code, code_of(answer)) == (401, "malformed_api_key"), sent
            assert f"'{sent}'" in answer.json()["detail"]


@pytest.mark.parametrize("spares", [True, False])
async def test_a_placeholder_from_a_blocked_address_is_refused_for_the_block(
    open_scene: OpenScene, spares: bool
) -> None:
    async with open_scene(block_after_failures=1, block_spares_valid_keys=spares) as scene:
        await scene.fail()
        assert code_of(await scene.get(token="undefined")) == "address_blocked"


async def test_a_placeholder_is_not_an_event_and_not_looked_up(open_scene: OpenScene) -> None:
    async with open_scene(imported_prefixes=["*"]) as scene:
        answer = await scene.get(token="<your-own-api-key-here>")
        assert code_of(answer) == "malformed_api_key"


WRONG_PLACES: list[tuple[dict[str, str], str, str]] = [
    ({"authorization": f"Token {TOKEN}"}, "/models", "the scheme 'Token'"),
    ({"authorization": f"ApiKey {TOKEN}"}, "/models", "the scheme 'ApiKey'"),
    ({"authorization": "Basic dXNlcjpwYXNzd29yZA=="}, "/models", "the scheme 'Basic'"),
    ({"authorization": TOKEN}, "/models", "without the word 'Bearer'"),
    ({"authorization": f"Bearer Bearer {TOKEN}"}, "/models", "the word 'Bearer' twice"),
    ({"authorization": f'Bearer "{TOKEN}"'}, "/models", "the Bearer value is wrapped in quotes"),
    ({"authorization": "Bearer undefined"}, "/models", "the placeholder 'undefined' was sent as Bearer value"),
    ({"authorization": "Bearer eyJhbGciOi"}, "/models", "does not start with 'ka_'"),
    ({"x-api-key": TOKEN}, "/models", "the 'x-api-key' header is not read"),
    ({"X-API-Key": "anything"}, "/models", "the 'x-api-key' header is not read"),
    ({"apikey": TOKEN}, "/models", "the 'apikey' header is not read"),
    ({}, f"/models?api_key={TOKEN}", "a key in the query is not read"),
    ({}, f"/models?whatever={TOKEN}", "a key in the query is not read"),
    ({}, "/models?api-key=abc", "a key in the query is not read"),
    ({"cookie": f"a=b; key={TOKEN}"}, "/models", "a key in a cookie is not read"),
]
"""Headers, a path, and what the response says."""


async def test_a_key_in_the_wrong_place_is_missing_and_the_place_is_named(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=1) as scene:
        for headers, path, says in WRONG_PLACES * 2:
            answer = await scene.get(path, headers=list(headers.items()))
            assert (answer.status_code, code_of(answer)) == (401, "missing_api_key"), says
            assert says.lower() in answer.json()["detail"].lower()
            assert "'api-key' header" in answer.json()["detail"]
            assert secret_of(TOKEN) not in answer.text


async def test_management_routes_name_the_place_too(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        answer = await scene.get("/api-keys", headers=[("x-api-key", TOKEN)])
        assert code_of(answer) == "missing_credentials"
        assert "the 'x-api-key' header is not read" in answer.json()["detail"].lower()


async def test_any_query_is_answered(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        for query in (b"\xff=%", b"&&==&", b"a" * 10_000, b"api_key", b"=", b"%zz=%zz"):
            assert (await call(scene.app, query=query)).code == "missing_api_key", query


@pytest.mark.parametrize("header_name", ["x-api-key", "authorization-key"])
async def test_the_configured_header_is_never_called_another_one(open_scene: OpenScene, header_name: str) -> None:
    async with open_scene(header_name=header_name) as scene:
        answer = await scene.get(token=TOKEN)
        assert "the 'api-key' header is not read" in answer.json()["detail"].lower()
        answer = await scene.get(headers=[(header_name, NO_TOKEN)])
        assert code_of(answer) == "malformed_api_key"


async def test_without_bearer_keys_a_key_is_never_handed_to_the_session_resolver(open_scene: OpenScene) -> None:
    seen: list[str] = []

    async def resolve(token: str, connection: HTTPConnection) -> SessionPrincipal | None:
        seen.append(token)
        return SessionPrincipal("ada")

    async with open_scene(session_resolver=resolve, accept_bearer_keys=False, imported_prefixes=["sk_"]) as scene:
        for token in ((await scene.key()).token, "sk_0123456789abcdef"):
            assert code_of(await scene.get("/me", bearer=token)) == "invalid_session"
            answer = await scene.get(bearer=token)
            assert code_of(answer) == "missing_api_key"
        assert seen == []
        assert (await scene.get("/me", bearer="jwt")).status_code == 200


async def test_several_session_tokens_are_an_invalid_session(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        tokens = [await scene.session("ada"), await scene.session("bob")]
        headers = [("authorization", f"Bearer {token}") for token in tokens]
        assert code_of(await scene.get("/me", headers=headers)) == "invalid_session"
