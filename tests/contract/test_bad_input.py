"""Hostile bytes in headers, paths and queries: the correct refusal, and never a 5xx."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.asgi import HeaderLines, RawAnswer, call, knock
from tests.helpers.fuzzing import fuzzed
from tests.helpers.raw_values import raw_values
from tests.helpers.stage import OpenScene, Scene
from tests.helpers.tokens import BASE62, forge

# Most of this happens before the store; what gets to it must be taken by the stricter one.
STACKS = ("postgres-valkey",)
relaxed = fuzzed(60)


def looks_empty(value: bytes) -> bool:
    """Return whether some parser of the header may read it as empty."""
    return not value.decode("latin-1").strip()


def is_no_token(value: bytes) -> bool:
    """Return whether the bytes, without surrounding space, are not a well-formed token."""
    return value.decode("latin-1").strip() != forge()


def assert_refused(answer: RawAnswer, *codes: str) -> None:
    """Check for a 401 with one of these codes."""
    assert answer.status == 401, (answer.status, answer.body)
    assert answer.code in codes


@relaxed
@given(value=raw_values.filter(is_no_token))
async def test_any_bytes_in_the_key_header_are_missing_or_malformed(patient_scene: Scene, value: bytes) -> None:
    answer = await call(patient_scene.app, headers=[(b"api-key", value)])
    if not value.strip(b" \t"):
        assert_refused(answer, "missing_api_key")
    elif looks_empty(value):
        assert_refused(answer, "missing_api_key", "malformed_api_key")
    else:
        assert_refused(answer, "malformed_api_key")


@relaxed
@given(value=raw_values.filter(is_no_token))
async def test_any_bytes_in_a_bearer_value_are_missing_or_malformed(patient_scene: Scene, value: bytes) -> None:
    answer = await call(patient_scene.app, headers=[(b"authorization", b"Bearer " + value)])
    if value.startswith(b"ka_") and len(value) > 3:
        assert_refused(answer, "malformed_api_key")
    elif b"ka_" in value:
        assert_refused(answer, "missing_api_key", "malformed_api_key")
    else:
        assert_refused(answer, "missing_api_key")


@relaxed
@given(value=raw_values)
async def test_any_bytes_in_the_authorization_header_are_refused(patient_scene: Scene, value: bytes) -> None:
    headers = [(b"authorization", value)]
    codes = ("missing_api_key", "malformed_api_key", "invalid_api_key")
    assert_refused(await call(patient_scene.app, headers=headers), *codes)
    answer = await call(patient_scene.app, "/me", headers=headers)
    assert_refused(answer, "missing_session", "invalid_session")
    answer = await call(patient_scene.app, "/api-keys", headers=headers)
    assert_refused(answer, "missing_credentials", "invalid_session", *codes[1:])


@relaxed
@given(value=raw_values)
async def test_any_bytes_as_a_session_are_an_invalid_session(patient_scene: Scene, value: bytes) -> None:
    headers = [(b"authorization", b"Bearer x" + value)]
    assert_refused(await call(patient_scene.app, "/me", headers=headers), "invalid_session")


@relaxed
@given(data=st.data())
async def test_one_mistyped_character_is_malformed(patient_scene: Scene, data: st.DataObject) -> None:
    token = forge(secret=data.draw(st.text(BASE62, min_size=43, max_size=43)))
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(BASE62 + "_-").filter(lambda char: char != token[place]))
    mistyped = token[:place] + other + token[place + 1 :]
    answer = await call(patient_scene.app, headers=[(b"api-key", mistyped.encode())])
    assert_refused(answer, "malformed_api_key")


@relaxed
@given(
    key_id=st.text(BASE62, min_size=12, max_size=12),
    secret=st.text(BASE62, min_size=43, max_size=43),
)
async def test_a_well_formed_guess_is_invalid(patient_scene: Scene, key_id: str, secret: str) -> None:
    token = forge(key_id=key_id, secret=secret)
    answer = await call(patient_scene.app, headers=[(b"api-key", token.encode())])
    assert_refused(answer, "invalid_api_key")


@relaxed
@given(
    lines=st.lists(
        st.tuples(st.sampled_from([b"api-key", b"authorization", b"origin"]), raw_values),
        min_size=2,
        max_size=5,
    )
)
async def test_repeated_headers_never_break_anything(patient_scene: Scene, lines: HeaderLines) -> None:
    for path in ("/models", "/me", "/api-keys", "/notes"):
        method = "POST" if path == "/notes" else "GET"
        answer = await call(patient_scene.app, path, method=method, headers=lines)
        assert answer.status == 401


@relaxed
@given(origin=raw_values, forwarded=raw_values)
async def test_any_origin_and_forwarding_headers_get_a_response(
    patient_scene: Scene, origin: bytes, forwarded: bytes
) -> None:
    lines = [
        (b"origin", origin),
        (b"x-forwarded-for", forwarded),
        (b"access-control-request-method", origin),
        (b"access-control-request-headers", forwarded),
    ]
    for method in ("GET", "OPTIONS"):
        answer = await call(patient_scene.app, method=method, headers=lines)
        assert answer.status < 500
        names = {name.lower() for name, _ in answer.headers}
        assert b"access-control-allow-origin" not in names


@relaxed
@given(forwarded=st.lists(raw_values, min_size=1, max_size=3))
async def test_any_forwarding_header_from_a_trusted_proxy_gets_a_response(
    patient_scene: Scene, forwarded: list[bytes]
) -> None:
    lines = [(b"api-key", b"wrong"), *((b"x-forwarded-for", value) for value in forwarded)]
    answer = await call(patient_scene.app, headers=lines, peer=("10.0.0.1", 1))
    assert_refused(answer, "malformed_api_key")


@relaxed
@given(value=raw_values.filter(is_no_token))
async def test_any_bytes_in_an_upgrade_are_refused(patient_scene: Scene, value: bytes) -> None:
    sent = await knock(patient_scene.app, headers=[(b"api-key", value)])
    assert sent[0]["type"] == "websocket.http.response.start"
    assert sent[0]["status"] == 401


HOSTILE_TEXTS = [
    "",
    "\x00",
    "a\x00b",
    "../../etc/passwd",
    "' OR 1=1 --",
    "%",
    "\ud800",
    "٣" * 12,
    "💥",
    "x" * 5000,
    "\r\nset-cookie: a=b",
    "null",
    "-1",
    str(10**400),
    "NaN",
    "1e400",
    "2026-01-01",
]


def quoted(text: str) -> str:
    """Percent-encode a text; a lone surrogate becomes bytes that are not UTF-8."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.mark.parametrize("scopes", ["*", "admin"])
async def test_hostile_queries_are_answered(open_scene: OpenScene, scopes: str) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        session = await scene.session(scopes=[scopes])
        for parameter in ("q", "status", "unused_for_days", "cursor", "limit", "owner_id"):
            for text in HOSTILE_TEXTS:
                for path in ("/api-keys", f"/api-keys/{key.id}/events"):
                    answer = await scene.get(f"{path}?{parameter}={quoted(text)}", bearer=session)
                    assert answer.status_code in (200, 403, 422), (parameter, text, answer.status_code)
                    json.loads(answer.content)


async def test_hostile_hours_are_answered(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        for text in HOSTILE_TEXTS:
            path = f"/api-keys/{key.id}/usage?hours={quoted(text)}"
            answer = await scene.get(path, bearer=session)
            assert answer.status_code in (200, 422), (text, answer.status_code)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_hostile_ids_are_not_found(open_scene: OpenScene, method: str) -> None:
    async with open_scene() as scene:
        session = await scene.session(scopes=["*", "admin"])
        for text in HOSTILE_TEXTS[1:]:
            for tail in ("", "/usage", "/events"):
                if tail and method != "GET":
                    continue
                path = f"/api-keys/{quoted(text)}{tail}"
                body = {"name": "n"} if method == "PATCH" else None
                answer = await scene.send(method, path, bearer=session, json=body)
                assert answer.status_code in (404, 405, 422), (text, answer.status_code)


async def test_a_cursor_of_another_list_is_answered(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        for _ in range(3):
            await scene.key()
        cursor = (await scene.get("/api-keys?limit=1", bearer=session)).json()["next_cursor"]
        stranger = await scene.session("stranger")
        for bad in (cursor, cursor[:-1], cursor[::-1], cursor + "A", cursor * 2):
            answer = await scene.get(f"/api-keys?cursor={quoted(bad)}", bearer=stranger)
            assert answer.status_code in (200, 422)
            if answer.status_code == 200:
                assert answer.json()["items"] == []
