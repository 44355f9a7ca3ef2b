"""Random requests: never a 5xx, never admitted without the key, never an undocumented response."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fastapi_keyauth.http.problem_details import TABLE
from tests.helpers.asgi import RawAnswer, call
from tests.helpers.fuzzing import fuzzed
from tests.helpers.raw_values import raw_values
from tests.helpers.stage import Issued, Scene
from tests.helpers.thorough import turns
from tests.helpers.tokens import forge, secret_of, spoiled

STACKS = ("sqlite-memory",)  # what is checked here happens before the store and the limiter
EXAMPLES = turns(thorough=200, brief=60)
VALUES_EACH = 50

WANT_A_KEY = ("/models", "/items", "/stream", "/api-keys/current")
WANT_MORE = ("/notes", "/me", "/api-keys")
PLAIN = ("/open", "/maybe", "/nowhere", "/models/", "//models", "/api-keys/0123456789Ab", "/api-keys/%2e%2e", "/MODELS")
ANSWERS = {(row.status, row.code) for row in TABLE.values()}
VALID, SESSION = b"<valid>", b"<session>"
"""Stand for what is known only once the scene is open."""


@fuzzed(EXAMPLES)
@given(values=st.lists(st.tuples(raw_values, raw_values), min_size=VALUES_EACH, max_size=VALUES_EACH))
async def test_thousands_of_random_header_values_get_a_401(
    patient_scene: Scene, values: list[tuple[bytes, bytes]]
) -> None:
    for key, authorization in values:
        answer = await call(patient_scene.app, headers=[(b"api-key", key), (b"authorization", authorization)])
        assert answer.status == 401, (key, authorization, answer)


parts_of_values = st.sampled_from(
    [
        VALID,
        SESSION,
        b"Bearer ",
        b"bearer  ",
        b"Basic ",
        b" ",
        b",",
        b"\t",
        b"\x00",
        b"ka_live_",
        b'"',
        forge().encode(),
    ]
)
values = st.one_of(st.lists(parts_of_values, max_size=4).map(b"".join), raw_values)
names = st.sampled_from(
    b"api-key authorization origin x-forwarded-for forwarded cookie content-type api_key x-api-key "
    b"access-control-request-method transfer-encoding range host".split()
)
requests = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "GET", "GET", "POST", "OPTIONS", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"]),
        "path": st.sampled_from([*WANT_A_KEY, *WANT_A_KEY, *WANT_MORE, *PLAIN]),
        "query": st.one_of(st.just(b""), st.binary(max_size=20), st.just(b"api-key=" + VALID)),
        "headers": st.lists(st.tuples(names, values), max_size=5),
        "peer": st.sampled_from([("203.0.113.7", 1), ("10.0.0.1", 1), ("::1", 1), ("testclient", 1), None]),
    }
)


def filled_in(value: bytes, key: Issued, session: str) -> bytes:
    """Return the request with the real credentials in place of the placeholders."""
    return value.replace(VALID, key.token.encode()).replace(SESSION, session.encode())


def brings_the_key(headers: list[tuple[bytes, bytes]], token: str) -> bool:
    """Return whether the key is sent in a valid place, so that the request may be admitted."""
    sent = [value.strip(b" \t").lower() for name, value in headers if name == b"api-key"]
    sent += [value.strip(b" \t")[6:].strip(b" \t").lower() for name, value in headers if name == b"authorization"]
    return token.lower().encode() in sent


def assert_sound(answer: RawAnswer, request: Any, token: str) -> None:
    """Check what every response must satisfy."""
    assert 200 <= answer.status < 500, (request, answer)
    secret = secret_of(token).encode()
    assert secret not in answer.body
    # Starlette's redirect repeats the host, whatever the client has put there.
    assert all(secret not in value for name, value in answer.headers if name != b"location")
    names = [name for name, _ in answer.headers]
    assert b"access-control-allow-credentials" not in names
    if answer.code is not None:
        assert (answer.status, answer.code) in ANSWERS
        assert (answer.status == 401) == (b"www-authenticate" in names)


@fuzzed(300)
@given(request=requests)
async def test_any_request_is_answered_and_only_the_key_admits_it(patient_scene: Scene, request: Any) -> None:
    scene = patient_scene
    key, session = await credentials_of(scene)
    headers = [(name, filled_in(value, key, session)) for name, value in request["headers"]]
    # Where a slash is too many, Starlette's redirect fails over a query that is no UTF-8, for any app.
    query = b"" if request["path"].endswith("/") else filled_in(request["query"], key, session)
    answer = await call(
        scene.app, request["path"], method=request["method"], headers=headers, query=query, peer=request["peer"]
    )
    assert_sound(answer, request, key.token)
    is_preflight = request["method"] == "OPTIONS" and answer.status == 204
    if request["path"] in WANT_A_KEY and answer.status < 300 and not is_preflight:
        assert brings_the_key(headers, key.token), (request, answer)


async def credentials_of(scene: Scene) -> tuple[Issued, str]:
    """Return one key without a limit and one session for all examples of a scene."""
    known: tuple[Issued, str] | None = getattr(scene.app.state, "credentials", None)
    if known is None:
        known = scene.app.state.credentials = (await scene.key(hourly_limit=10**9), await scene.session())
    return known


@fuzzed(50)
@given(at=st.integers(0, 70), character=st.characters(max_codepoint=255))
async def test_no_neighbor_of_a_valid_token_is_admitted(patient_scene: Scene, at: int, character: str) -> None:
    key, _ = await credentials_of(patient_scene)
    at %= len(key.token)
    neighbour = key.token[:at] + character + key.token[at + 1 :]
    for text in (
        neighbour,
        key.token[:at] + key.token[at + 1 :],
        key.token[:at] + character + key.token[at:],
        spoiled(neighbour),
    ):
        answer = await call(patient_scene.app, headers=[(b"api-key", text.encode("latin-1"))])
        assert answer.status == (200 if text.strip(" \t") == key.token else 401)
