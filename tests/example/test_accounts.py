"""Sign up, log in, log out; and whose notes a key can see."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from tests.example.people import PASSWORD, log_in, make_key

# On PostgreSQL, which takes less than SQLite; the walkthrough's tests run the same app on SQLite.
pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
def client(example_app: FastAPI, make_client: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    return make_client(example_app)


async def test_sign_up_log_in_make_a_key_use_it(client: httpx.AsyncClient) -> None:
    credentials = {"email": "alice@example.com", "password": PASSWORD}
    signed_up = await client.post("/signup", json=credentials)
    assert signed_up.status_code == 201
    assert signed_up.json().keys() == {"id", "email"}
    logged_in = await client.post("/login", json=credentials)
    assert logged_in.headers["cache-control"] == "no-store"
    key = await make_key(client, logged_in.json()["session_token"])
    models = await client.get("/v1/models", headers={"api-key": key})
    assert [model["id"] for model in models.json()["data"]] == ["parrot-1"]


async def test_email_address_is_taken_once_in_any_case(client: httpx.AsyncClient) -> None:
    answers = [
        await client.post("/signup", json={"email": email, "password": PASSWORD})
        for email in ("alice@example.com", "ALICE@example.com ")
    ]
    assert [answer.status_code for answer in answers] == [201, 409]
    await log_in(client, "Alice@Example.com")


async def test_password_is_stored_as_argon2id_hash(client: httpx.AsyncClient) -> None:
    await log_in(client)
    async with sys.modules["example_app.database"].engine.connect() as connection:
        stored = (await connection.execute(text("SELECT password_hash FROM users"))).scalar_one()
    assert stored.startswith("$argon2id$")


async def test_wrong_password_and_unknown_user_are_alike_and_cost_the_same(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_in(client)
    passwords = sys.modules["example_app.passwords"]
    hasher, work = passwords._hasher, []

    class Watched:
        def verify(self, phc: str, password: str) -> bool:
            work.append((phc.split("$")[1:4], threading.current_thread() is threading.main_thread()))
            return bool(hasher.verify(phc, password))

    monkeypatch.setattr(passwords, "_hasher", Watched())
    wrong = await client.post("/login", json={"email": "alice@example.com", "password": "not the password"})
    unknown = await client.post("/login", json={"email": "nobody@example.com", "password": PASSWORD})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.content == unknown.content
    assert wrong.headers == unknown.headers
    assert len(work) == 2
    assert work[0] == work[1]
    assert not work[0][1], "hashed on the event loop"


async def test_sign_up_rejects_invalid_values(client: httpx.AsyncClient) -> None:
    for email, password in (
        ("alice", PASSWORD),
        ("a\0@example.com", PASSWORD),
        ("a\x1c@example.com", PASSWORD),
        ("a\x85@example.com", PASSWORD),
        ("a\ufeff@example.com", PASSWORD),
        ("a" * 250 + "@example.com", PASSWORD),
        ("alice@example.com", "short"),
        ("alice@example.com", "x" * 1001),
    ):
        answer = await client.post("/signup", json={"email": email, "password": password})
        assert answer.status_code == 422, (email, password)


async def test_refused_body_is_not_repeated(client: httpx.AsyncClient) -> None:
    """It may contain a password, or values that a JSON response cannot contain."""
    for body, field in (
        ('{"password": "hunter2"}', "email"),
        ('{"email": "a@example.com", "password": "hunter2\\ud800"}', "password"),
    ):
        answer = await client.post("/login", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422, body
        assert "hunter2" not in answer.text
        assert [complaint["loc"] for complaint in answer.json()["detail"]] == [["body", field]]


async def test_log_out_ends_this_session_alone(client: httpx.AsyncClient) -> None:
    ended, other = await log_in(client), await log_in(client)
    bearer = {"Authorization": f"bearer  {ended} "}
    assert (await client.post("/logout", headers=bearer)).status_code == 204
    again = await client.post("/logout", headers=bearer)
    assert (again.status_code, again.json()["code"]) == (401, "invalid_session")
    await make_key(client, other)


async def test_log_out_without_a_session_is_a_401(client: httpx.AsyncClient) -> None:
    answer = await client.post("/logout")
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_session")


async def test_key_sees_the_notes_of_its_owner_alone(client: httpx.AsyncClient) -> None:
    alice, bob = await log_in(client), await log_in(client, "bob@example.com")
    alices_key, bobs_key = await make_key(client, alice), await make_key(client, bob)
    headers = {"api-key": alices_key, "Authorization": f"Bearer {alice}"}
    added = await client.post("/v1/notes", json={"text": "Alice's"}, headers=headers)
    assert added.status_code == 201
    assert (await client.get("/v1/notes", headers={"api-key": alices_key})).json() == [added.json()]
    assert (await client.get("/v1/notes", headers={"api-key": bobs_key})).json() == []


async def test_adding_a_note_requires_a_key_and_a_session(client: httpx.AsyncClient) -> None:
    session = await log_in(client)
    key = await make_key(client, session)
    note = {"text": "Hello"}
    without_session = await client.post("/v1/notes", json=note, headers={"api-key": key})
    assert (without_session.status_code, without_session.json()["code"]) == (403, "session_required")
    without_key = await client.post("/v1/notes", json=note, headers={"Authorization": f"Bearer {session}"})
    assert (without_key.status_code, without_key.json()["code"]) == (401, "missing_api_key")
    assert (await client.get("/v1/notes", headers={"api-key": key})).json() == []


async def test_restricted_key_does_what_its_scopes_allow(client: httpx.AsyncClient) -> None:
    session = await log_in(client)
    asking = {"api-key": await make_key(client, session, scopes=["completions:write"])}
    reading = {"api-key": await make_key(client, session, scopes=["notes:read"])}
    chat = {"model": "parrot-1", "messages": [{"role": "user", "content": "say this"}]}
    answer = await client.post("/v1/chat/completions", json=chat, headers=asking)
    assert answer.json()["choices"][0]["message"]["content"] == "say this"
    refused = await client.post("/v1/chat/completions", json=chat, headers=reading)
    assert (refused.status_code, refused.json()["missing_scopes"]) == (403, ["completions:write"])
    assert (await client.get("/v1/notes", headers=reading)).status_code == 200
    assert (await client.get("/v1/notes", headers=asking)).status_code == 403
    assert (await client.get("/v1/models", headers=asking)).status_code == 200


async def test_scope_outside_the_catalog_cannot_be_granted(client: httpx.AsyncClient) -> None:
    bearer = {"Authorization": f"Bearer {await log_in(client)}"}
    answer = await client.post("/api-keys", json={"name": "x", "scopes": ["completion:write"]}, headers=bearer)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "scopes"])


async def test_health_and_docs_are_public(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
    schema = (await client.get("/openapi.json")).json()
    wanted = {path: schema["paths"][path]["post"].get("security") for path in ("/login", "/logout", "/v1/notes")}
    assert wanted == {
        "/login": None,
        "/logout": [{"Session": []}],
        "/v1/notes": [{"ApiKey": ["notes:write"], "Session": ["notes:write"]}],
    }
