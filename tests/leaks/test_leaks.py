"""Reports of leaked tokens, which revoke their keys."""

import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Annotated, Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import Depends, FastAPI

from fastapi_keyauth import KeyAuth, KeyPrincipal, TemporarilyUnavailable
from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.domain.tokens import checksum
from fastapi_keyauth.errors import HasherUnavailable, LimiterUnavailable
from fastapi_keyauth.http.routers.signing_keys import FETCH_EVERY_S, KEEP_S, SigningKeys
from fastapi_keyauth.keys.outbox import HOLDS_WITHIN_S
from fastapi_keyauth.testing import FrozenClock, cheap_settings

SIGNER = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(encoding, form).decode())


async def find_keys() -> dict[str, str]:
    return {"k1": pem(SIGNER)}


def signed(body: bytes, key: ec.EllipticCurvePrivateKey = SIGNER) -> dict[str, str]:
    signature = base64.b64encode(key.sign(body, ec.ECDSA(hashes.SHA256()))).decode()
    return {"Github-Public-Key-Identifier": "k1", "Github-Public-Key-Signature": signature}


def report_of(*tokens: str, url: str = "https://code.example/x.env") -> bytes:
    return json.dumps([{"token": token, "type": "ka", "url": url, "source": "content"} for token in tokens]).encode()


@pytest.fixture
async def auth() -> AsyncIterator[KeyAuth]:
    auth = KeyAuth(cheap_settings(), clock=FrozenClock())
    async with auth:
        yield auth


@pytest.fixture
async def client(auth: KeyAuth) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.build_leaks_router(find_keys=find_keys), prefix="/leaks")
    app.include_router(auth.keys_router, prefix="/api-keys")

    @app.get("/me")
    async def me(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return key.id

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_a_reported_key_is_refused_from_then_on(auth: KeyAuth, client: httpx.AsyncClient) -> None:
    made = await auth.keys.create("alice", "CI")
    assert (await client.get("/me", headers={"api-key": made.token})).status_code == 200
    body = report_of(made.token)
    assert (await client.post("/leaks", content=body, headers=signed(body))).status_code == 204
    assert (await client.get("/me", headers={"api-key": made.token})).json()["code"] == "revoked_api_key"
    events = (await auth.keys.events(made.key.id)).items
    assert [(event.event, event.actor) for event in events] == [
        ("revoked", "leak:github"),
        ("leaked", "leak:github"),
        ("created", "code"),
    ]
    assert events[1].changes == {
        "leak": {"source": "github", "url": "https://code.example/x.env", "hint": made.key.hint}
    }


@pytest.mark.parametrize(
    "headers", [{}, signed(b"[]"), signed(report_of("x"), ec.generate_private_key(ec.SECP256R1()))]
)
async def test_without_the_scanners_signature_nothing_happens(
    auth: KeyAuth, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    made = await auth.keys.create("alice", "CI")
    answer = await client.post("/leaks", content=report_of(made.token), headers=headers)
    assert answer.status_code == 403
    assert (await auth.keys.get(made.key.id)).status == "active"


async def test_an_invented_token_revokes_nothing_and_gets_the_same_response(
    auth: KeyAuth, client: httpx.AsyncClient
) -> None:
    made = await auth.keys.create("alice", "CI")
    start = made.token[: made.token.rindex("_") + 1] + "0" * 43
    elsewhere = made.token[:-6].replace("_live_", "_test_")  # the right secret, in a token that was never given out
    for token in (
        start + checksum(start),
        elsewhere + checksum(elsewhere),
        made.token[:-1],
        "",
        "ka_live_000000000000_" + "0" * 49,
    ):
        body = report_of(token)
        answer = await client.post("/leaks", content=body, headers=signed(body))
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await auth.keys.get(made.key.id)).status == "active"
    assert len((await auth.keys.events(made.key.id)).items) == 1


async def test_a_secret_that_was_replaced_is_written_down_alone(auth: KeyAuth) -> None:
    made = await auth.keys.create("alice", "CI")
    await auth.keys.rotate(made.key.id, overlap=timedelta(0))
    assert await auth.leaks.report(made.token, "scanner", "https://x.example") == "recorded"
    assert (await auth.keys.get(made.key.id)).status == "active"
    assert (await auth.keys.events(made.key.id)).items[0].event == "leaked"


async def test_a_secret_within_its_overlap_is_alive(auth: KeyAuth) -> None:
    made = await auth.keys.create("alice", "CI")
    await auth.keys.rotate(made.key.id, overlap=timedelta(hours=1))
    assert await auth.leaks.report(made.token) == "revoked"


async def test_reported_twice_it_is_revoked_once(auth: KeyAuth) -> None:
    made = await auth.keys.create("alice", "CI")
    assert [await auth.leaks.report(made.token) for _ in range(2)] == ["revoked", "recorded"]
    revoked_at = (await auth.keys.get(made.key.id)).revoked_at
    assert await auth.leaks.report(made.token) == "recorded"
    assert (await auth.keys.get(made.key.id)).revoked_at == revoked_at
    events = [event.event for event in (await auth.keys.events(made.key.id)).items]
    assert events == ["revoked", "leaked", "created"], "a report that is replayed adds no line"
    await auth.leaks.report(made.token, url="https://elsewhere.example")
    assert len((await auth.keys.events(made.key.id)).items) == 4


async def test_it_may_only_be_written_down(auth: KeyAuth) -> None:
    made = await auth.keys.create("alice", "CI")
    assert await auth.leaks.report(made.token, revoke=False) == "recorded"
    assert (await auth.keys.get(made.key.id)).status == "active"


async def test_neither_log_nor_history_holds_the_token(auth: KeyAuth, caplog: pytest.LogCaptureFixture) -> None:
    made = await auth.keys.create("alice", "CI")
    with caplog.at_level(logging.DEBUG):
        await auth.leaks.report(made.token, "scanner", f"https://x.example/?key={made.token}")
    history = repr((await auth.keys.events(made.key.id)).items)
    assert made.token[-49:] not in caplog.text + history
    assert f"<token {made.key.id}>" in history


@pytest.mark.parametrize("source", ["", "two words", "a" * 65, "x\n"])
async def test_a_source_is_a_name(auth: KeyAuth, source: str) -> None:
    with pytest.raises(ValueError, match="source"):
        await auth.leaks.report("x", source)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{}", 422),
        (b"[1]", 422),
        (b'[{"token": 1}]', 422),
        (b"[" * 100_000, 422),
        (b"[" + b",".join([b'{"token":"x"}'] * 1001) + b"]", 422),
        (b" " * 1_048_577, 413),
        (b'[{"token": "x", "url": 5}]', 204),
    ],
    ids=["empty", "object", "numbers", "a number for a token", "deep", "too many", "too long", "a number for a url"],
)
async def test_a_signed_message_of_another_form_is_refused(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    assert (await client.post("/leaks", content=body, headers=signed(body))).status_code == status


async def test_all_tokens_of_a_message_are_revoked_though_no_worker_can_be_notified(
    auth: KeyAuth, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await auth.keys.create("alice", name) for name in "abc"]

    async def fail(_key_id: str, _owner_id: str) -> None:
        raise LimiterUnavailable

    monkeypatch.setattr(auth._parts.limiter, "bump_generation", fail)
    body = report_of(*(one.token for one in made))
    answer = await client.post("/leaks", content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["holds_within_s"]) == (503, HOLDS_WITHIN_S)
    assert [(await auth.keys.get(one.key.id)).status for one in made] == ["revoked"] * 3


async def test_a_token_that_cannot_be_checked_now_does_not_delay_other_revocations(
    auth: KeyAuth, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await auth.keys.create(owner, "k") for owner in ("busy", "calm")]
    real = Hasher.verify

    async def verify(self: Hasher, phc: str, secret: str, owner_id: str) -> bool:
        if owner_id == "busy":
            raise HasherUnavailable
        return await real(self, phc, secret, owner_id)

    monkeypatch.setattr(Hasher, "verify", verify)
    body = report_of(*(one.token for one in made))
    assert (await client.post("/leaks", content=body, headers=signed(body))).status_code == 503
    assert [(await auth.keys.get(one.key.id)).status for one in made] == ["active", "revoked"]


@pytest.mark.parametrize("url", ["https://code.example/\ud800", "https://code.example/\0"])
async def test_a_url_that_is_not_valid_text_does_not_break_the_history(
    auth: KeyAuth, client: httpx.AsyncClient, url: str
) -> None:
    made = await auth.keys.create("alice", "CI")
    body = report_of(made.token, url=url)
    assert (await client.post("/leaks", content=body, headers=signed(body))).status_code == 204
    session = {"authorization": f"Bearer {await auth.sessions.create('alice')}"}
    answer = await client.get(f"/api-keys/{made.key.id}/events", headers=session)
    assert answer.json()["items"][1]["changes"]["leak"]["url"] == "https://code.example/?"


async def test_the_example_of_githubs_documentation_is_signed() -> None:
    """Source: docs.github.com, "Secret scanning partner program"; its test key, message and signature."""
    key = (
        "-----BEGIN PUBLIC KEY-----\n"
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP\n"
        "HzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==\n"
        "-----END PUBLIC KEY-----\n"
    )

    async def find() -> dict[str, str]:
        return {"f9525b": key}

    body = b'[{"token":"some_token","type":"some_type","url":"some_url","source":"some_source"}]'
    signature = "MEUCIFLZzeK++IhS+y276SRk2Pe5LfDrfvTXu6iwKKcFGCrvAiEAhHN2kDOhy2I6eGkOFmxNkOJ+L2y8oQ9A2T9GGJo6WJY="
    keys = SigningKeys(find)
    assert await keys.is_signed(body, "f9525b", signature)
    assert not await keys.is_signed(body + b" ", "f9525b", signature)
    assert not await keys.is_signed(body, "f9525b", "no base64")
    assert not await keys.is_signed(body, "other", signature)


class Publisher:
    """Publisher of keys that counts requests."""

    def __init__(self, answer: Callable[[], dict[str, str]]) -> None:
        self.answer = answer
        self.asked = 0

    async def __call__(self) -> dict[str, str]:
        self.asked += 1
        return self.answer()


async def test_keys_are_fetched_again_when_they_are_old_or_unknown_but_seldom() -> None:
    clock = FrozenClock()
    publisher = Publisher(lambda: {"k1": pem(SIGNER)})
    keys = SigningKeys(publisher, clock)
    signature = signed(b"x")["Github-Public-Key-Signature"]
    assert await keys.is_signed(b"x", "k1", signature)
    for _ in range(3):
        assert not await keys.is_signed(b"x", "made up", signature)
    assert publisher.asked == 1
    clock.move(FETCH_EVERY_S + 1)
    assert not await keys.is_signed(b"x", "made up", signature)
    assert publisher.asked == 2
    clock.move(KEEP_S + 1)
    assert await keys.is_signed(b"x", "k1", signature)
    assert publisher.asked == 3


async def test_the_scanner_is_asked_to_retry_if_its_keys_cannot_be_fetched() -> None:
    def fail() -> dict[str, str]:
        raise OSError

    publisher = Publisher(fail)
    keys = SigningKeys(publisher, FrozenClock())
    for _ in range(2):
        with pytest.raises(TemporarilyUnavailable):
            await keys.is_signed(b"x", "k1", "")
    assert publisher.asked == 1


async def test_a_key_of_another_kind_signs_nothing() -> None:
    other = pem(rsa.generate_private_key(65537, 2048))
    keys = SigningKeys(Publisher(lambda: {"k1": other}))
    assert not await keys.is_signed(b"x", "k1", "AAAA")


async def test_a_key_that_cannot_be_read_takes_the_others_nothing() -> None:
    """A publisher may later add keys of a type that is unknown here."""
    unreadable = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    keys = SigningKeys(Publisher(lambda: {"k0": unreadable, "k1": pem(SIGNER)}))
    assert await keys.is_signed(b"x", "k1", signed(b"x")["Github-Public-Key-Signature"])
    assert not await keys.is_signed(b"x", "k0", signed(b"x")["Github-Public-Key-Signature"])
