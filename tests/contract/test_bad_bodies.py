"""Hostile bodies to the management routes: never a 5xx, never a 400, and never an unintended key."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.fuzzing import fuzzed
from tests.helpers.stage import OpenScene, Scene
from tests.helpers.thorough import IS_THOROUGH
from tests.helpers.tokens import secret_of

SOUND_STATUSES = {200, 201, 204, 401, 403, 404, 409, 422}
HUGE = "1" + "0" * 400
ENDLESS = "1" * 6000

HOSTILE_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "space": b"   ",
    "null": b"null",
    "true": b"true",
    "number": b"1",
    "string": b'"name"',
    "list": b'[{"name": "n"}]',
    "empty": b"{}",
    "cut": b'{"name": "n',
    "two documents": b'{"name": "n"} {"name": "m"}',
    "single quotes": b"{'name': 'n'}",
    "form": b"name=n&scopes=admin",
    "not utf-8": b'{"name": "\xff\xfe"}',
    "overlong utf-8": b'{"name": "\xc0\xaf"}',
    "encoded surrogate": b'{"name": "\xed\xa0\x80"}',
    "utf-16": '{"name": "n"}'.encode("utf-16"),
    "utf-32": '{"name": "n"}'.encode("utf-32"),
    "bom": b'\xef\xbb\xbf{"name": "n"}',
    "nul bytes": b"\x00" * 100,
    "nul in name": b'{"name": "a\\u0000b"}',
    "raw control": b'{"name": "a\x01b"}',
    "lone surrogate": b'{"name": "\\ud800"}',
    "lone low surrogate": b'{"name": "\\udfff x"}',
    "surrogate in a scope": b'{"name": "n", "scopes": ["\\ud800"]}',
    "nul in a scope": b'{"name": "n", "scopes": ["a\\u0000"]}',
    "surrogate in metadata": b'{"name": "n", "metadata": {"a": "\\ud800"}}',
    "surrogate as metadata key": b'{"name": "n", "metadata": {"\\ud800": 1}}',
    "nul in metadata": b'{"name": "n", "metadata": {"a\\u0000": "b\\u0000"}}',
    "surrogate as a field": b'{"name": "n", "\\ud800": 1}',
    "surrogate in an origin": b'{"name": "n", "allowed_origins": ["https://\\ud800.example"]}',
    "surrogate in a cidr": b'{"name": "n", "allowed_ips": ["\\ud800"]}',
    "surrogate as environment": b'{"name": "n", "environment": "\\ud800"}',
    "surrogate as owner": b'{"name": "n", "owner_id": "\\ud800"}',
    "nul as owner": b'{"name": "n", "owner_id": "\\u0000"}',
    "surrogate as expiry": b'{"name": "n", "expires_at": "\\ud800"}',
    "NaN limit": b'{"name": "n", "hourly_limit": NaN}',
    "infinite limit": b'{"name": "n", "hourly_limit": Infinity}',
    "NaN seconds": b'{"name": "n", "expires_in_s": NaN}',
    "NaN metadata": b'{"name": "n", "metadata": {"a": NaN, "b": -Infinity}}',
    "NaN as an unknown field": b'{"name": "n", "x": NaN}',
    "NaN overlap": b'{"overlap_s": NaN}',
    "NaN expiry": b'{"name": "n", "expires_at": NaN}',
    "NaN body": b"NaN",
    "huge limit": b'{"name": "n", "hourly_limit": %s}' % HUGE.encode(),
    "huge seconds": b'{"name": "n", "expires_in_s": %s}' % HUGE.encode(),
    "huge expiry": b'{"name": "n", "expires_at": %s}' % HUGE.encode(),
    "huge negative expiry": b'{"name": "n", "expires_at": -%s}' % HUGE.encode(),
    "huge overlap": b'{"overlap_s": %s}' % HUGE.encode(),
    "huge float": b'{"name": "n", "expires_in_s": 1e308}',
    "overflowing float": b'{"name": "n", "expires_in_s": 1e999}',
    "huge in metadata": b'{"name": "n", "metadata": {"a": %s}}' % HUGE.encode(),
    "endless integer": b'{"name": "n", "hourly_limit": %s}' % ENDLESS.encode(),
    "beyond 64 bits": b'{"name": "n", "hourly_limit": 9223372036854775808}',
    "at 32 bits": b'{"name": "n", "hourly_limit": 2147483648}',
    "last year": b'{"name": "n", "expires_at": "9999-12-31T23:59:59Z"}',
    "last year, west": b'{"name": "n", "expires_at": "9999-12-31T23:59:59-23:59"}',
    "first year, east": b'{"name": "n", "expires_at": "0001-01-01T00:00:00+23:59"}',
    "leap second": b'{"name": "n", "expires_at": "2030-06-30T23:59:60Z"}',
    "long name": b'{"name": "%s"}' % (b"x" * 1_000_000),
    "many scopes": json.dumps({"name": "n", "scopes": ["items:read"] * 20_000}).encode(),
    "long scope": json.dumps({"name": "n", "scopes": ["s" * 100_000]}).encode(),
    "many addresses": json.dumps({"name": "n", "allowed_ips": ["10.0.0.1/32"] * 9000}).encode(),
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep metadata": b'{"name": "n", "metadata": ' + b'{"a":' * 600 + b"1" + b"}" * 601,
    "very deep metadata": b'{"name": "n", "metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    "deep and flat": b'{"name": "n", "metadata": {"a": ' + b"[" * 1500 + b"]" * 1500 + b"}}",
    "same name twice": b'{"name": "a", "name": "b"}',
    "proto": b'{"name": "n", "__proto__": {"admin": true}, "__class__": 1}',
    "address with a zone": b'{"name": "n", "allowed_ips": ["fe80::1%eth0"]}',
    "address as integer": b'{"name": "n", "allowed_ips": [3405803783]}',
    "bidi name": '{"name": "\u202eeman"}'.encode(),
}
TARGETS = [("POST", "/api-keys"), ("PATCH", "/api-keys/{id}"), ("POST", "/api-keys/{id}/rotate")]


def assert_sound(answer: httpx.Response, sent: str = "") -> None:
    """Check for a documented status, and a body that any JSON parser accepts."""
    assert answer.status_code in SOUND_STATUSES, (sent, answer.status_code, answer.text[:300])
    if answer.content:
        with suppress(RecursionError):  # a limit of this reader, not of JSON
            json.loads(answer.content, parse_constant=refuse_constant)


def refuse_constant(name: str) -> Any:
    """Reject NaN and Infinity, which are not JSON (RFC 8259)."""
    raise AssertionError(f"the answer holds {name}")


@pytest.mark.parametrize(("method", "path"), TARGETS)
async def test_a_hostile_body_gets_a_documented_response(open_scene: OpenScene, method: str, path: str) -> None:
    async with open_scene(max_keys_per_owner=1000) as scene:
        session, key = await scene.session(), await scene.key()
        last = list(HOSTILE_BODIES)[-1]
        for name, body in HOSTILE_BODIES.items():
            answer = await scene.send(method, path.format(id=key.id), bearer=session, content=body)
            assert_sound(answer, name)
            if not (answer.is_success or name == last or IS_THOROUGH):
                continue  # A refused body creates and changes nothing that could be read.
            # The newest come first: the key, and the one that was made of the body.
            for reading in ("/api-keys?limit=2", f"/api-keys/{key.id}", f"/api-keys/{key.id}/events"):
                read = await scene.get(reading, bearer=session)
                assert read.status_code == 200, name
                assert_sound(read, name)
            if answer.status_code == 201:
                token = answer.json()["token"]
                used = await scene.get(token=token)
                assert used.status_code in (200, 401), name
                assert secret_of(token) not in used.text, name
            key = await scene.key()


@pytest.mark.parametrize(("method", "path"), TARGETS)
async def test_a_hostile_body_without_a_credential_is_a_401(open_scene: OpenScene, method: str, path: str) -> None:
    async with open_scene() as scene:
        key = await scene.key()
        for name in ("cut", "not utf-8", "NaN limit", "deep list", "empty", "endless integer"):
            answer = await scene.send(method, path.format(id=key.id), content=HOSTILE_BODIES[name])
            assert answer.status_code in (401, 422)


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "", "multipart/form-data"])
async def test_an_odd_content_type_gets_a_documented_response(open_scene: OpenScene, content_type: str) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        lines = {"authorization": f"Bearer {session}", "content-type": content_type}
        async with scene.make_client(scene.app) as client:
            for body in (b'{"name": "n"}', b"\xff\xfe"):
                assert_sound(await client.post("/api-keys", headers=lines, content=body))


async def test_json_that_is_not_named_as_such_is_refused_with_the_header_to_send(open_scene: OpenScene) -> None:
    """What `curl -d` sends without a header for the content type."""
    async with open_scene() as scene:
        form = {"content-type": "application/x-www-form-urlencoded"}
        lines = {"authorization": f"Bearer {await scene.session()}"} | form
        async with scene.make_client(scene.app) as client:
            answer = await client.post("/api-keys", headers=lines, content=b'{"name": "n"}')
        assert answer.status_code == 422
        [complaint] = answer.json()["detail"]
        assert "'Content-Type: application/json'" in complaint["msg"]


any_text = st.text(st.characters(), max_size=30)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": any_text | any_json,
    "scopes": st.lists(any_text, max_size=4) | any_json,
    "hourly_limit": st.integers() | st.floats() | any_json,
    "allowed_origins": st.lists(any_text.map("https://{}".format), max_size=3) | any_json,
    "allowed_ips": st.lists(any_text | st.ip_addresses().map(str), max_size=3) | any_json,
    "metadata": st.dictionaries(any_text, any_json, max_size=4) | any_json,
    "environment": any_text | any_json,
    "expires_at": st.datetimes().map(lambda moment: moment.isoformat() + "Z") | any_json,
    "expires_in_s": st.integers() | st.floats() | any_json,
    "enabled": st.booleans() | any_json,
    "owner_id": any_text | any_json,
    "overlap_s": st.integers() | st.floats() | any_json,
}
bodies = st.fixed_dictionaries({}, optional=FIELDS)
owner_numbers = count()
named_bodies = bodies.map(lambda body: {"name": "n", **body})


@fuzzed(20)
@given(body=bodies | named_bodies | any_json, scopes=st.sampled_from(["*", "admin"]))
async def test_any_json_body_gets_a_documented_response(patient_scene: Scene, body: Any, scopes: str) -> None:
    owner_id = f"hostile-{next(owner_numbers)}"
    key = await patient_scene.key(owner_id=owner_id)
    session = await patient_scene.session(owner_id, [scopes])
    content = json.dumps(body).encode()
    for method, path in TARGETS:
        target = path.format(id=key.id)
        assert_sound(await patient_scene.send(method, target, bearer=session, content=content))
    read = await patient_scene.get(f"/api-keys/{key.id}", bearer=session)
    assert read.status_code == 200
    assert_sound(read)


@fuzzed(30)
@given(content=st.binary(max_size=200))
async def test_any_bytes_as_a_body_get_a_documented_response(patient_scene: Scene, content: bytes) -> None:
    session = await patient_scene.session("hostile")
    answer = await patient_scene.send("POST", "/api-keys", bearer=session, content=content)
    assert_sound(answer)
    assert answer.status_code == 422


async def test_a_body_that_is_too_large_is_refused_before_it_is_read_to_its_end(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session("hostile")
        for method, path in TARGETS:
            sent = 0

            async def endless() -> AsyncIterator[bytes]:
                nonlocal sent
                for _ in range(1000):
                    sent += 1
                    yield b" " * 16_384

            target = path.format(id="0" * 12)
            answer = await scene.send(method, target, bearer=session, content=endless())
            assert answer.status_code == 422, target
            assert "larger than 65536 bytes" in answer.text
            assert sent == 5  # 80 KiB, the first chunk beyond the bound
