"""Attacks that once worked and must not work again."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_keyauth import KeyAuth, SessionPrincipal
from fastapi_keyauth.auth.credentials import CredentialReader
from fastapi_keyauth.domain.ip_addresses import AddressResolver
from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.domain.tokens import format_token, new_key_id, new_secret, new_session_token
from fastapi_keyauth.http.headers import find_header
from fastapi_keyauth.http.protect import Exemptions
from tests.helpers.asgi import call
from tests.helpers.keys import Gate, store_of

MakeAuth = Callable[..., KeyAuth]
Build = Callable[..., tuple[KeyAuth, httpx.AsyncClient]]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


@pytest.fixture
def build(make_auth: MakeAuth, make_client: Any) -> Build:
    def built(**options: Any) -> tuple[KeyAuth, httpx.AsyncClient]:
        auth = make_auth(**options)
        app = FastAPI()
        auth.install(app)
        app.include_router(auth.keys_router, prefix="/api-keys")
        return auth, make_client(app)

    return built


@pytest.mark.parametrize("user_id", [None, "", 7, "a" * 256, "a\x00b"])
async def test_a_resolver_that_names_no_user_admits_no_request(build: Build, user_id: Any) -> None:
    async def resolve(_token: str, _connection: Any) -> SessionPrincipal:
        return SessionPrincipal(user_id=user_id)

    auth, client = build(session_resolver=resolve)
    async with auth:
        created = await auth.keys.create(owner_id="victim", name="k")
        for method, path in (("GET", ""), ("DELETE", f"/{created.key.id}"), ("POST", f"/{created.key.id}/rotate")):
            answer = await client.request(method, f"/api-keys{path}", headers={"authorization": "Bearer x"})
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")


async def test_a_session_that_its_resolver_calls_expired_admits_no_request(build: Build) -> None:
    ends_in_s = 60

    async def resolve(_token: str, _connection: Any) -> SessionPrincipal:
        return SessionPrincipal("a", expires_at=datetime.now(UTC) + timedelta(seconds=ends_in_s))

    auth, client = build(session_resolver=resolve)
    async with auth:
        session = {"authorization": "Bearer x"}
        assert (await client.get("/api-keys", headers=session)).status_code == 200
        ends_in_s = 0
        answer = await client.get("/api-keys", headers=session)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata", {"a": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}),
        ("allowed_ips", ["fe80::1%" + "A" * 1000]),
        ("allowed_ips", ["fe80::1%eth0"]),
    ],
)
async def test_what_would_spoil_a_list_is_not_stored(build: Build, field: str, value: Any) -> None:
    auth, client = build()
    async with auth:
        session = {"authorization": f"Bearer {await auth.sessions.create('a')}"}
        answer = await client.post("/api-keys", json={"name": "n", field: value}, headers=session)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"][:2] == ["body", field]


async def test_a_large_body_is_refused_before_it_is_parsed_and_never_repeated(build: Build) -> None:
    auth, client = build()
    async with auth:
        session = {"authorization": f"Bearer {await auth.sessions.create('a')}"}
        for content in (
            b'{"name":"x","zz":[' + b"[]," * 1_000_000 + b"1]}",
            b'{"name":"x","zz":[' + b"[]," * 20_000 + b"1]}",
        ):
            answer = await client.post("/api-keys", content=content, headers=session)
            assert answer.status_code == 422
            assert len(answer.content) < 1000


async def test_a_422_repeats_no_token(build: Build) -> None:
    auth, client = build()
    async with auth:
        session = {"authorization": f"Bearer {await auth.sessions.create('a')}"}
        made = (await client.post("/api-keys", json={"name": "n"}, headers=session)).json()
        answer = await client.patch(f"/api-keys/{made['id']}", json=made, headers=session)
        assert answer.status_code == 422
        assert made["token"][20:60] not in answer.text


async def test_a_422_repeats_no_token_that_is_the_name_of_a_field(build: Build) -> None:
    auth, client = build()
    async with auth:
        session = {"authorization": f"Bearer {await auth.sessions.create('a')}"}
        made = (await client.post("/api-keys", json={"name": "n"}, headers=session)).json()
        for method, path in (("POST", ""), ("PATCH", f"/{made['id']}"), ("POST", f"/{made['id']}/rotate")):
            answer = await client.request(method, f"/api-keys{path}", json={made["token"]: 1}, headers=session)
            assert answer.status_code == 422
            assert made["token"][20:60] not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {f"{number:x}": 0 for number in range(6000)},
        *({"name": "n", field: [0] * 20_000} for field in ("scopes", "allowed_origins", "allowed_ips")),
    ],
)
async def test_a_body_that_is_wrong_in_thousands_of_places_is_answered_in_short(build: Build, body: Any) -> None:
    auth, client = build()
    async with auth:
        session = {"authorization": f"Bearer {await auth.sessions.create('a')}"}
        answer = await client.post("/api-keys", json=body, headers=session)
        assert answer.status_code == 422
        assert len(answer.json()["detail"]) <= 100


async def test_a_refusal_logs_no_more_of_a_path_than_helps(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    auth, client = build()
    caplog.set_level("INFO", logger="fastapi_keyauth")
    async with auth:
        assert (await client.get(f"/api-keys/{'a' * 60_000}")).status_code == 401
    refusals = [record for record in caplog.records if getattr(record, "keyauth_event", None) == "refused"]
    assert len(refusals) == 1
    assert len(refusals[0].getMessage()) < 1200


async def test_a_method_puts_no_token_into_the_log_and_steers_no_terminal(
    make_auth: MakeAuth, caplog: pytest.LogCaptureFixture
) -> None:
    auth, app, token = make_auth(), FastAPI(), format_token("ka", "live", new_key_id(), new_secret())
    auth.protect(app)
    caplog.set_level("INFO", logger="fastapi_keyauth")
    async with auth:
        for method in (token, "\x1b[2J\n", "A" * 60_000):  # uvicorn with h11 takes any word, others more than words
            assert (await call(app, method=method)).status == 401
    refusals = [record for record in caplog.records if getattr(record, "keyauth_event", None) == "refused"]
    assert len(refusals) == 3
    for record in refusals:
        assert token[-40:] not in f"{record.getMessage()}{record.__dict__}"
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) < 3000


async def test_invented_origins_cost_one_read(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    auth, client = build()
    async with auth:
        reads = Gate(monkeypatch, store_of(auth), "origins_of_active_keys")
        reads.opened.set()
        for number in range(50):
            await client.get("/api-keys", headers={"origin": f"https://{number}.example"})
        assert reads.calls == 1


def test_a_header_that_is_sent_many_times_costs_no_more_than_its_length(stack: Any) -> None:
    names = (b"origin", b"x-forwarded-for", b"api-key", b"authorization")
    headers = [(name, b"x" * 10) for name in names for _ in range(100_000)]  # uvicorn with httptools takes that many
    began = time.thread_time()
    find_header(headers, b"origin")
    CredentialReader("api-key", "ka", accept_bearer_keys=True).read(headers)
    AddressResolver(["10.0.0.0/8"], 64).resolve(("10.0.0.1", 1), headers)
    assert time.thread_time() - began < 3  # a guard: well below 1 s, or many times as long where it is quadratic


@pytest.mark.parametrize("before", ["", "x_", "é", "/", "key=", "a"])
def test_no_token_gets_past_redaction(stack: Any, before: str) -> None:
    for token in (format_token("ka", "live", new_key_id(), new_secret()), new_session_token()):
        assert token[-40:] not in redact(f"{before}{token}/b")


@pytest.mark.parametrize(
    ("path", "exempt"),
    [
        ("/health", True),
        ("/docs", True),
        ("/docs/", True),
        ("/docs/oauth2-redirect", True),
        ("/docs/..", False),
        ("/docs/../items", False),
        ("/docs/./items", False),
        ("/docs//items", False),
        ("/docs/%2e%2e/items", False),
        ("/docs/..;/items", False),
        ("/docs\\..\\items", False),
        ("/docsx", False),
        ("/Health", False),
        ("/health/", False),
        ("//health", False),
        ("", False),
    ],
)
def test_only_what_every_server_reads_alike_is_exempt(stack: Any, path: str, exempt: bool) -> None:
    assert Exemptions(["/health", "/docs/*"]).covers(path) is exempt


async def test_one_is_not_true(build: Build) -> None:
    auth, _ = build()
    async with auth:
        created = await auth.keys.create(owner_id="a", name="n", metadata={"a": 1})
        changed = await auth.keys.update(created.key.id, metadata={"a": True})
        assert changed.metadata["a"] is True
        assert (await auth.keys.get(created.key.id)).metadata["a"] is True


async def test_a_parameter_in_the_wrong_place_is_refused_and_does_nothing(build: Build) -> None:
    auth, client = build()
    async with auth:
        session = {"authorization": f"Bearer {await auth.sessions.create('a')}"}
        made = (await client.post("/api-keys", json={"name": "n"}, headers=session)).json()
        path = f"/api-keys/{made['id']}"
        for method, url in (
            ("POST", f"{path}/rotate?overlap_s=0"),
            ("GET", "/api-keys?unused_days=90"),
            ("DELETE", f"{path}?x=1"),
        ):
            answer = await client.request(method, url, headers=session)
            assert answer.status_code == 422
            assert answer.json()["detail"][0]["loc"][0] == "query"
            assert (await client.request(method, url)).status_code == 401
        key = (await client.get(path, headers=session)).json()
        assert (key["hint"], key["status"]) == (made["hint"], "active")


@pytest.mark.parametrize(
    ("header", "value", "says"),
    [
        ("authorization", 'Bearer "{token}"', "wrapped in quotes"),
        ("authorization", "Bearer Bearer {token}", "the word 'Bearer' twice"),
        ("api-key", "Bearer {token}", "starts with the word 'Bearer'"),
        ("api-key", '"{token}"', "quotes"),
        ("api-key", "{session}", "session token"),
        ("api-key", "{token} x", "white space"),
        ("api-key", "{token}x", "additional characters"),
        ("api-key", "sk_live_abc", "does not start with 'ka_'"),
    ],
)
async def test_the_usual_mistakes_are_named(build: Build, header: str, value: str, says: str) -> None:
    auth, client = build()
    async with auth:
        created = await auth.keys.create(owner_id="a", name="n")
        sent = value.format(token=created.token, session=new_session_token())
        answer = await client.get("/api-keys/current", headers={header: sent})
        assert answer.status_code == 401
        assert says in answer.json()["detail"]
        assert created.token[25:] not in answer.text


async def test_a_query_that_is_not_text_gets_a_response(build: Build) -> None:
    """Servers pass such bytes on, and Starlette's ``request.url`` fails if it gets them."""
    auth, client = build()
    async with auth:
        session = {b"authorization": b"Bearer " + (await auth.sessions.create("a")).encode()}
        app = client._transport.app  # type: ignore[attr-defined]  # httpx itself would encode the bytes
        made = (await client.post("/api-keys", json={"name": "n"}, headers=session)).json()
        for path in ("/api-keys", f"/api-keys/{made['id']}", "/api-keys/current"):
            answer = await call(app, path, query=b"\x80=\xff")
            assert answer.status == 401
        assert (await call(app, "/api-keys", query=b"\x80", headers=list(session.items()))).status == 422


async def test_no_cache_keeps_what_a_management_route_says(build: Build) -> None:
    """A shared cache knows that responses to ``Authorization`` are private, but not those to ``api-key``."""
    auth, client = build()
    async with auth:
        made = await auth.keys.create(owner_id="a", name="n", scopes=["keys:read", "keys:write"])
        key = {"api-key": made.token}
        path = f"/api-keys/{made.key.id}"
        for url, status in (
            ("/api-keys", 200),
            ("/api-keys/current", 200),
            (path, 200),
            (f"{path}/usage", 200),
            (f"{path}/events", 200),
            (f"/api-keys/{new_key_id()}", 404),  # a cache may keep it, too (RFC 9110 section 15.1)
        ):
            answer = await client.get(url, headers=key)
            assert (answer.status_code, answer.headers.get_list("cache-control")) == (status, ["no-store"]), url


@pytest.mark.parametrize("what", ["secret", "environment"])
async def test_a_tag_that_fits_opens_nothing_and_ends_nothing(
    build: Build, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """An attacker can try all 32-bit tags: the hash, and the environment of the row, decide."""
    for module in ("keys.management", "auth.verifier", "keys.leaks"):
        monkeypatch.setattr(f"fastapi_keyauth.{module}.secret_tag", lambda _secret: "00000000")
    auth, client = build()
    async with auth:
        made = await auth.keys.create(owner_id="a", name="n")
        secret = made.token.rpartition("_")[2][:43]
        forged = format_token("ka", "live", made.key.id, new_secret())
        if what == "environment":
            forged = format_token("ka", "test", made.key.id, secret)
        for _ in range(2):  # what was verified once is remembered
            answer = await client.get("/api-keys/current", headers={"api-key": forged})
            assert answer.json()["code"] == "invalid_api_key"
            assert await auth.leaks.report(forged) == "unknown"
            assert (await client.get("/api-keys/current", headers={"api-key": made.token})).status_code == 200


async def test_a_list_of_addresses_refuses_who_has_none(build: Build) -> None:
    """For example, over a Unix socket."""
    auth, client = build()
    async with auth:
        made = await auth.keys.create(owner_id="a", name="n", allowed_ips=["0.0.0.0/0", "::/0"])
        app = client._transport.app  # type: ignore[attr-defined]  # its own client has an address
        headers = [(b"api-key", made.token.encode())]
        answer = await call(app, "/api-keys/current", headers=headers, peer=None)
        assert (answer.status, answer.code) == (401, "address_not_allowed")
        assert (await call(app, "/api-keys/current", headers=headers)).status == 200


async def test_two_different_sessions_are_both_rejected(build: Build) -> None:
    auth, client = build()
    async with auth:
        sessions = [f"Bearer {await auth.sessions.create(user)}" for user in ("a", "b")]
        for sent in (sessions, sessions[::-1]):
            answer = await client.get("/api-keys", headers=[("authorization", value) for value in sent])
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_session")
        answer = await client.get("/api-keys", headers=[("authorization", sessions[0])] * 2)
        assert answer.status_code == 200  # the same one, sent twice
