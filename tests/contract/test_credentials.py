"""Section 1: the form of tokens, where they may be sent, and missing credentials."""

import logging
import re

import httpx
import pytest

from fastapi_keyauth import TOKEN_PATTERN
from tests.helpers.asgi import call
from tests.helpers.stage import OpenScene, code_of
from tests.helpers.tokens import NO_TOKEN, checksummed, forge, secret_of, spoiled

# What is checked here happens before the store and the limiter, so one stack says it all.
STACKS = ("sqlite-memory",)

API_TOKEN = re.compile(r"ka_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")
SESSION_TOKEN = re.compile(r"ks_[0-9A-Za-z]{49}")


async def test_an_api_token_has_the_promised_form(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert API_TOKEN.fullmatch(key.token)
        assert key.token == checksummed(key.token[:-6])
        assert key.token.split("_")[2] == key.id


async def test_a_session_token_has_the_promised_form(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        token = await scene.session()
        assert SESSION_TOKEN.fullmatch(token)
        assert token == checksummed(token[:-6])


@pytest.mark.parametrize("environment", ["live", "t", "0", "staging2", "a1" * 8])
async def test_the_published_pattern_finds_every_token(open_scene: OpenScene, environment: str) -> None:
    async with open_scene() as scene:
        key = await scene.key(environment=environment)
        assert key.token.startswith(f"ka_{environment}_{key.id}_")
        assert re.fullmatch(TOKEN_PATTERN, key.token)
        found = re.search(TOKEN_PATTERN, f'export API_KEY="{key.token}"  # oops')
        assert found is not None
        assert found[0] == key.token
        assert (await scene.get(token=key.token)).status_code == 200


async def test_no_two_tokens_share_an_id_or_a_secret(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        keys = [await scene.key() for _ in range(5)]
        assert len({key.id for key in keys}) == 5
        assert len({secret_of(key.token) for key in keys}) == 5


async def test_the_prefix_of_api_tokens_is_a_setting(open_scene: OpenScene) -> None:
    async with open_scene(key_prefix="acme") as scene:
        key = await scene.key()
        assert key.token.startswith(f"acme_live_{key.id}_")
        assert key.token == checksummed(key.token[:-6])
        assert (await scene.get(token=key.token)).status_code == 200
        assert (await scene.get(bearer=key.token)).status_code == 200
        assert code_of(await scene.get(token=forge())) == "malformed_api_key"
        assert SESSION_TOKEN.fullmatch(await scene.session())


async def test_the_default_environment_is_a_setting(open_scene: OpenScene) -> None:
    async with open_scene(default_environment="staging") as scene:
        key = await scene.key()
        assert key.token.startswith("ka_staging_")
        assert key.row.environment == "staging"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_key_travels_as_bearer_value_too(open_scene: OpenScene, scheme: str) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        answer = await scene.get(headers=[("authorization", f"{scheme} {key.token}")])
        assert answer.status_code == 200
        assert answer.json()["id"] == key.id


async def test_bearer_keys_can_be_switched_off(open_scene: OpenScene) -> None:
    async with open_scene(accept_bearer_keys=False) as scene:
        key = await scene.key()
        assert code_of(await scene.get(bearer=key.token)) == "missing_api_key"
        assert code_of(await scene.get("/me", bearer=key.token)) == "invalid_session"
        other = await scene.key()
        assert (await scene.get(token=key.token, bearer=other.token)).status_code == 200


async def test_the_header_name_is_a_setting(open_scene: OpenScene) -> None:
    async with open_scene(header_name="x-acme-key") as scene:
        key = await scene.key()
        answer = await scene.get(headers=[("X-Acme-Key", key.token)])
        assert answer.status_code == 200
        assert code_of(await scene.get(token=key.token)) == "missing_api_key"


@pytest.mark.parametrize("name", ["api-key", "api_key", "token", "access_token", "key"])
async def test_a_token_in_the_query_is_not_read(open_scene: OpenScene, name: str) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert code_of(await scene.get(f"/models?{name}={key.token}")) == "missing_api_key"


@pytest.mark.parametrize("name", ["api-key", "api_key", "session", "token"])
async def test_a_token_in_a_cookie_is_not_read(open_scene: OpenScene, name: str) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        session = await scene.session()
        cookie = [("cookie", f"{name}={key.token}")]
        assert code_of(await scene.get(headers=cookie)) == "missing_api_key"
        cookie = [("cookie", f"{name}={session}")]
        assert code_of(await scene.get("/me", headers=cookie)) == "missing_session"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"api-key", b"")],
        [(b"api-key", b" ")],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"bearer   ")],
        [(b"api-key", b""), (b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic dXNlcjpwYXNzd29yZA==")],
        [(b"authorization", b"Bearer ks_something")],
        [(b"authorization", b"Bearer kappa")],
    ],
)
async def test_an_unset_variable_is_a_missing_key(open_scene: OpenScene, headers: list[tuple[bytes, bytes]]) -> None:
    async with open_scene(block_after_failures=1) as scene:
        for _ in range(3):
            answer = await call(scene.app, headers=headers)
            assert (answer.status, answer.code) == (401, "missing_api_key")


@pytest.mark.parametrize("value", [b"", b"Bearer", b"Bearer "])
async def test_an_empty_bearer_is_a_missing_session(open_scene: OpenScene, value: bytes) -> None:
    async with open_scene() as scene:
        headers = [(b"authorization", value)]
        answer = await call(scene.app, "/me", headers=headers)
        assert (answer.status, answer.code) == (401, "missing_session")
        key = await scene.key()
        headers.append((b"api-key", key.token.encode()))
        answer = await call(scene.app, "/notes", method="POST", headers=headers)
        assert (answer.status, answer.code) == (403, "session_required")


async def test_an_empty_header_does_not_hide_a_bearer_key(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert (await scene.get(token="", bearer=key.token)).status_code == 200
        assert (await scene.get(token=key.token, headers=[("authorization", "Bearer")])).is_success


async def test_two_key_headers_are_malformed(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        one, other = await scene.key(), await scene.key()
        for second in (one.token, other.token, NO_TOKEN):
            answer = await scene.get(headers=[("api-key", one.token), ("api-key", second)])
            assert code_of(answer) == "malformed_api_key"


async def test_a_header_and_another_bearer_key_are_malformed(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        one, other = await scene.key(), await scene.key()
        for bearer in (other.token, "ka_nonsense"):
            answer = await scene.get(token=one.token, bearer=bearer)
            assert code_of(answer) == "malformed_api_key"


async def test_a_key_with_an_unknown_session_is_sufficient_on_routes_that_require_only_a_key(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        assert (await scene.get(token=key.token, bearer="no-session")).status_code == 200


MALFORMED = {
    "nonsense": NO_TOKEN,
    "wrong checksum": spoiled(forge()),
    "checksum of another token": forge()[:-6] + forge(secret="B" * 43)[-6:],
    "cut short": forge()[:-1],
    "too long": forge() + "0",
    "trailing newline, escaped": forge() + "%0A",
    "wrong prefix": forge(prefix="kb"),
    "prefix in capitals": forge(prefix="KA"),
    "no prefix": checksummed(f"live_{'a' * 12}_{'A' * 43}"),
    "no environment": checksummed(f"ka_{'a' * 12}_{'A' * 43}"),
    "empty environment": forge(environment=""),
    "environment in capitals": forge(environment="LIVE"),
    "environment over 16": forge(environment="a" * 17),
    "environment with a dash": forge(environment="li-ve"),
    "id of 11": forge(key_id="a" * 11),
    "id of 13": forge(key_id="a" * 13),
    "secret of 42": forge(secret="A" * 42),
    "secret of 44": forge(secret="A" * 44),
    "secret not base62": forge(secret="A" * 42 + "-"),
    "secret with an underscore": forge(secret="A" * 42 + "_"),
    "session token": checksummed("ks_" + "A" * 43),
    "two words": forge() + " " + forge(),
    "comma-joined": forge() + ", " + forge(),
    "quoted": f'"{forge()}"',
    "with its scheme": "Bearer " + forge(),
    "very long": "ka_live_" + "A" * 20_000,
}


@pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED.keys())
async def test_values_that_are_not_tokens_are_malformed(open_scene: OpenScene, token: str) -> None:
    async with open_scene() as scene:
        answer = await scene.get(token=token)
        assert (answer.status_code, code_of(answer)) == (401, "malformed_api_key")
        assert token not in answer.text


@pytest.mark.parametrize("digit", ["\uff10", "\u0663", "\u00e9", "\uff21"])
async def test_only_ascii_digits_and_letters_make_a_token(open_scene: OpenScene, digit: str) -> None:
    async with open_scene() as scene:
        headers = [(b"api-key", forge(secret="A" * 42 + digit).encode("utf-8"))]
        assert (await call(scene.app, headers=headers)).code == "malformed_api_key"


async def test_a_well_formed_bearer_value_of_the_prefix_is_a_key_and_no_session(
    open_scene: OpenScene,
) -> None:
    async with open_scene() as scene:
        assert code_of(await scene.get(bearer=forge())) == "invalid_api_key"
        assert code_of(await scene.get(bearer="ka_")) == "malformed_api_key"
        key = await scene.key()
        answer = await scene.send("POST", "/notes", bearer=key.token)
        assert code_of(answer) == "session_required"


async def test_a_session_is_not_a_key(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        assert code_of(await scene.get(bearer=session)) == "missing_api_key"
        assert code_of(await scene.get(token=session)) == "malformed_api_key"


async def test_no_response_or_log_line_contains_a_secret(
    open_scene: OpenScene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_scene() as scene:
        created = await scene.auth.keys.create(owner_id="owner-1", name="quiet")
        token, session = created.token, await scene.session()
        wrong = forge(key_id=created.key.id, secret="Zz" * 21 + "Z")
        answers: list[httpx.Response] = [
            await scene.get(token=token),
            await scene.get(token=wrong),
            await scene.get(token=spoiled(token)),
            await scene.get("/crash", token=token),
            await scene.send("POST", "/notes", token=token, bearer=session),
            await scene.get("/me", bearer=spoiled(session)),
            await scene.get("/api-keys", bearer=session),
            await scene.get(f"/api-keys/{created.key.id}", bearer=session),
        ]
        secrets = [secret_of(token), secret_of(wrong), session[3:46]]
        said = [answer.text + str(answer.headers.raw) for answer in answers]
        shown = [repr(created), str(created), repr(created.key), repr(scene.auth)]
        for secret in secrets:
            assert all(secret not in text for text in said + shown)
            assert secret not in caplog.text


async def test_only_different_session_tokens_contradict_each_other(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        one, other = await scene.session("ada"), await scene.session("ada")
        for second, status in ((one, 200), (other, 401)):
            headers = [("authorization", f"Bearer {token}") for token in (one, second)]
            answer = await scene.get("/me", headers=headers)
            assert (answer.status_code, code_of(answer)) == (status, None if status == 200 else "invalid_session")
