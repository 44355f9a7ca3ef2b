"""What a verifier finds in the text of a token, what it reads of a key, and what it forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.auth.key_cache import NEGATIVE_TTL_S
from fastapi_keyauth.auth.tickets import Tickets
from fastapi_keyauth.auth.verifier import Location, Verifier
from fastapi_keyauth.domain.tokens import TokenFormError, TokenParser, format_token, new_key_id, new_secret
from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.telemetry.counters import Counters
from tests.helpers.keys import make_key, store_of

MakeAuth = Callable[..., KeyAuth]
ON_SQLITE = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


def test_location_of_a_token_is_written_as_its_key_without_its_secret() -> None:
    key_id, secret = new_key_id(), new_secret()
    text = format_token("ka", "live", key_id, secret)
    location = Location(text, b"digest", TokenParser("ka").parse(text))
    assert location.key_id == key_id
    assert repr(location) == f"Location(key_id='{key_id}')"
    assert f"{location}" == repr(location)


def test_location_of_an_imported_token_names_no_key_and_does_not_show_the_token() -> None:
    location = Location("acme-token", b"digest", None)
    assert location.key_id is None
    assert repr(location) == "Location(key_id=None)"


class Imported:
    """Tokens of imported keys: it records what is looked up."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def find_key_id(self, text: str, _digest: bytes) -> str:
        """Look a token up."""
        self.seen.append(text)
        return "imported"


async def test_only_tokens_of_imported_keys_are_looked_up_to_find_their_key() -> None:
    imported: Any = Imported()
    cache: Any = SimpleNamespace(find=None, find_negative=None)
    unused: Any = None
    key_id = new_key_id()
    text = format_token("ka", "live", key_id, new_secret())
    own = Location(text, b"digest", TokenParser("ka").parse(text))
    for accepted in (None, imported):
        verifier = Verifier(TokenParser("ka"), unused, unused, cache, unused, imported=accepted)
        assert await verifier.find_key_id(own) == key_id
    assert imported.seen == []
    assert await verifier.find_key_id(Location("acme-token", b"digest", None)) == "imported"
    assert imported.seen == ["acme-token"]


@ON_SQLITE
async def test_tokens_of_other_forms_are_located_only_with_the_prefixes_of_imported_keys(make_auth: MakeAuth) -> None:
    text = "kg_0a1b2c3d_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4MTIzNDU2"
    async with make_auth(imported_prefixes=("kg_",)) as auth:
        assert auth._parts.verifier.locate(text, b"digest").token is None
    async with make_auth() as auth:
        with pytest.raises(TokenFormError):
            auth._parts.verifier.locate(text, b"digest")


@ON_SQLITE
@pytest.mark.parametrize("share_s", [0.0, 10.0])
async def test_row_of_a_token_is_read_whether_or_not_the_reading_is_shared(make_auth: MakeAuth, share_s: float) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        verifier = auth._parts.verifier
        read = await verifier.read(verifier.locate(created.token, b"digest"), created.key.id, "generation", share_s)
        assert read is not None
        assert (read.key.id, read.generation) == (created.key.id, "generation")
        guessed = format_token("ka", created.key.environment, created.key.id, new_secret())
        assert await verifier.read(verifier.locate(guessed, b"other"), created.key.id, "generation", share_s) is None


@ON_SQLITE
async def test_invalid_token_is_forgotten_if_its_row_cannot_be_read_again(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise StoreUnavailable

    async with make_auth() as auth:
        created = await make_key(auth)
        verifier = auth._parts.verifier
        now = 0.0
        monkeypatch.setattr(verifier.key_cache, "_monotonic", lambda: now)
        verifier.key_cache.add_negative(b"digest", created.key.id)
        now = NEGATIVE_TTL_S
        assert verifier.find_negative(b"digest") is None, "this request reads the row again"
        assert verifier.find_negative(b"digest") == created.key.id, "other requests do not wait for it"
        monkeypatch.setattr(store_of(auth), "find_for_token", fail)
        with pytest.raises(StoreUnavailable):
            await verifier.read(verifier.locate(created.token, b"digest"), created.key.id, "generation")
        assert verifier.find_negative(b"digest") is None


class SlowTicketStore:
    """A store of tickets that writes only once it may."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.stored: list[str] = []

    async def read_ticket(self, _key_id: str, _secret_id: int) -> str | None:
        """Find no ticket."""
        return None

    async def write_ticket(self, key_id: str, _secret_id: int, _ticket: str) -> None:
        """Store a ticket."""
        await self.opened.wait()
        self.stored.append(key_id)


async def test_verifier_that_is_closed_has_stored_its_tickets() -> None:
    store = SlowTicketStore()
    tickets = Tickets(["a ticket key of at least 32 characters"], store, Counters())
    cache: Any = SimpleNamespace(find=None, find_negative=None)
    unused: Any = None
    verifier = Verifier(TokenParser("ka"), unused, unused, cache, unused, tickets=tickets)
    key: Any = SimpleNamespace(id="key", secret_id=1)
    tickets.issue_soon(key, "secret", "hash")
    asyncio.get_running_loop().call_soon(store.opened.set)
    await verifier.close()
    assert store.stored == ["key"]
