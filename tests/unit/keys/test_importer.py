"""Imported keys: their fields, their tokens, and imports with an invalid line, which write nothing."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import bcrypt
import pytest
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from fastapi_keyauth import (
    ExpiredApiKey,
    ImportRefused,
    InvalidApiKey,
    KeyAuth,
    MalformedApiKey,
    RevokedApiKey,
    SetupError,
)
from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.auth.imported_verifier import MAX_TRIED
from fastapi_keyauth.cli.import_keys import _complain, _read
from fastapi_keyauth.domain import imported_tokens as foreign
from fastapi_keyauth.errors import AddressBlocked, HasherUnavailable
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store.imported_keys import ImportStore
from fastapi_keyauth.store.mapping import secrets
from tests.helpers.keys import authenticate
from tests.helpers.stage import Clock

MakeAuth = Callable[..., KeyAuth]
TOKEN = "kg_0a1b2c3d_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4MTIzNDU2"
SECRET = TOKEN.removeprefix("kg_0a1b2c3d_")
WRONG = TOKEN[:-1] + "7"
SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()
ARGON2 = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PUBLIC = "kg_0a1b2c3d"


def hash_bcrypt(text: str) -> str:
    return bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode()


HASHES: dict[str, dict[str, Any]] = {
    "sha256": {"hash": SHA256},
    "sha512": {"hash": hashlib.sha512(TOKEN.encode()).hexdigest().upper()},
    "sha256 by public part": {"hash": SHA256, "public": PUBLIC},
    "sha512 of the secret": {
        "hash": hashlib.sha512(SECRET.encode()).hexdigest(),
        "public": PUBLIC,
        "hashed": "secret",
    },
    "bcrypt": {"hash": hash_bcrypt(TOKEN), "public": PUBLIC},
    "bcrypt of the secret": {"hash": hash_bcrypt(SECRET), "public": PUBLIC, "hashed": "secret"},
    "argon2": {"hash": ARGON2.hash(TOKEN), "public": PUBLIC},
    "argon2 of the secret": {"hash": ARGON2.hash(SECRET), "public": "kg_0a1b2c3d", "hashed": "secret"},
}


def record(**values: Any) -> dict[str, Any]:
    return {"owner_id": "ada", "name": "old", "hash": SHA256, **values}


async def row_of(auth: KeyAuth) -> Any:
    async with auth._parts.database.read() as connection:
        return (await connection.execute(select(secrets))).one()


async def settle(auth: KeyAuth) -> None:
    """Wait until background tasks have ended."""
    await auth._parts.verifier.close()


@pytest.fixture
def make(make_auth: MakeAuth) -> MakeAuth:
    def build(**settings: Any) -> KeyAuth:
        return make_auth(**{"imported_prefixes": ("kg_",), **settings})

    return build


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
@pytest.mark.parametrize("values", HASHES.values(), ids=HASHES)
async def test_an_imported_token_opens_its_key_and_is_hashed_our_way(make: MakeAuth, values: dict[str, Any]) -> None:
    async with make() as auth:
        (key_id,) = (await auth.keys.import_keys([record(**values)])).key_ids
        with pytest.raises(InvalidApiKey):
            await authenticate(auth, WRONG)
        assert (await row_of(auth)).scheme is not None
        assert (await authenticate(auth, TOKEN)).id == key_id
        await settle(auth)
        row = await row_of(auth)
        assert foreign.is_adopted(row.scheme)
        assert row.hash.startswith("$argon2id$")
        assert (await auth.keys.get(key_id)).hint == f"…{TOKEN[-4:]}"
    async with make() as other:  # another process, which has not seen the token
        assert (await authenticate(other, TOKEN)).id == key_id
        with pytest.raises(InvalidApiKey):
            await authenticate(other, WRONG)


@pytest.mark.parametrize("stack", ["postgres-valkey"], indirect=True)
async def test_an_imported_key_lives_as_any_other(make: MakeAuth) -> None:
    async with make() as auth, make() as other:
        limited = record(hourly_limit="5", scopes="a:read b", allowed_origins=["https://a.example"], last4=TOKEN[-4:])
        (key_id,) = (await auth.keys.import_keys([limited])).key_ids
        principal = await authenticate(auth, TOKEN)
        assert (principal.scopes, principal.remaining) == (frozenset({"a:read", "b"}), 4)
        assert (await authenticate(other, TOKEN)).remaining == 3
        await auth.keys.update(key_id, name="renamed")
        assert (await authenticate(other, TOKEN)).name == "renamed"
        rotated = await auth.keys.rotate(key_id, overlap=timedelta(hours=1))
        assert (await authenticate(other, rotated.token)).id == key_id
        assert (await authenticate(other, TOKEN)).remaining == 0
        events = [(event.event, event.actor) for event in await _events(auth, key_id)]
        assert events == [("rotated", "code"), ("updated", "code"), ("created", "code")]
        assert (await _events(auth, key_id))[-1].changes == {"imported": {"scheme": "sha256"}}
        await auth.keys.revoke(key_id)
        for token in (TOKEN, rotated.token):
            with pytest.raises(RevokedApiKey):
                await authenticate(other, token)


async def _events(auth: KeyAuth, key_id: str) -> list[Any]:
    return (await auth.keys.events(key_id)).items


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_only_configured_prefixes_are_looked_up(make: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    other_form = "sk-live:" + SECRET
    async with make(imported_prefixes=()) as auth:
        await auth.keys.import_keys([record(), record(hash=hashlib.sha256(other_form.encode()).hexdigest())])
        with pytest.raises(MalformedApiKey):
            await authenticate(auth, TOKEN)
    async with make() as auth:
        await authenticate(auth, TOKEN)
        for text in (other_form, "kg_short", TOKEN + " x", TOKEN + "é", "kg_" + "x" * 512):
            with pytest.raises(MalformedApiKey):
                await authenticate(auth, text)
    async with make(imported_prefixes=("*",), block_after_failures=3) as auth:
        await authenticate(auth, other_form)
        with pytest.raises(MalformedApiKey):  # one of ours, mistyped, is not looked up
            await authenticate(auth, "ka_live_" + SECRET)
        for _ in range(2):  # unknown, and remembered as such
            with pytest.raises(InvalidApiKey):
                await authenticate(auth, WRONG)
        monkeypatch.setattr(ImportStore, "find", None)  # a blocked address asks the database nothing
        with pytest.raises(AddressBlocked):
            await authenticate(auth, WRONG + "8")


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_a_hash_that_could_not_be_replaced_is_replaced_later(
    make: MakeAuth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("read-only"))

    async with make(max_staleness_s=0) as auth:
        await auth.keys.import_keys([record(**HASHES["bcrypt"])])
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(ImportStore, "adopt", refuse)
            await authenticate(auth, TOKEN)
            await settle(auth)
        assert SECRET not in caplog.text
        assert "keeps its old hash" in caplog.text
        assert (await row_of(auth)).scheme == "bcrypt"
        await authenticate(auth, TOKEN)
        await settle(auth)
        assert (await row_of(auth)).scheme is None


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_a_scheme_that_cannot_run_is_not_a_failed_attempt(
    make: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make() as auth:
        await auth.keys.import_keys([record(**HASHES["argon2"])])

        def fail(*_: Any) -> bool:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(foreign, "verify", fail)
            with pytest.raises(HasherUnavailable):
                await authenticate(auth, TOKEN)
        await authenticate(auth, TOKEN)


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_concurrent_first_uses_share_their_imported_hash(make: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = Hasher.verify_foreign

    async def count(self: Hasher, *args: Any) -> bool:
        calls.append(1)
        return await real(self, *args)

    monkeypatch.setattr(Hasher, "verify_foreign", count)
    async with make() as auth:
        await auth.keys.import_keys([record(**HASHES["bcrypt"])])
        principals = await asyncio.gather(*(authenticate(auth, TOKEN) for _ in range(10)))
        assert len({principal.id for principal in principals}) == 1
    assert len(calls) == 1


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_a_tag_that_fits_is_not_enough(make: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi_keyauth.auth.imported_verifier.secret_tag", lambda _text: "00000000")
    async with make() as auth:
        await auth.keys.import_keys([record(**HASHES["bcrypt"])])
        await authenticate(auth, TOKEN)
        await settle(auth)
        with pytest.raises(InvalidApiKey):
            await authenticate(auth, WRONG)


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_a_burst_of_wrong_tokens_costs_few_hashes(make: MakeAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them have passed the check for a block when the first of them is found invalid."""
    hold = asyncio.Event()
    real = Hasher.verify_foreign

    async def verify(self: Hasher, *args: Any) -> bool:
        await hold.wait()
        return await real(self, *args)

    monkeypatch.setattr(Hasher, "verify_foreign", verify)
    async with make() as auth:
        await auth.keys.import_keys([record(**HASHES["bcrypt"])])
        tries = [asyncio.create_task(authenticate(auth, f"{PUBLIC}_{n:040d}")) for n in range(MAX_TRIED + 30)]
        async with asyncio.timeout(30):
            for turned_away in islice(asyncio.as_completed(tries), 30):
                with pytest.raises(HasherUnavailable):
                    await turned_away
        hold.set()
        await asyncio.wait(tries)
        found_wrong = [tried for tried in tries if isinstance(tried.exception(), InvalidApiKey)]
        assert len(found_wrong) == MAX_TRIED
        await authenticate(auth, TOKEN)
        assert auth._parts.verifier.imported is not None
        assert not auth._parts.verifier.imported._tried


BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"hash": TOKEN}, "hash", "SHA-256"),
    ({"hash": hash_bcrypt(TOKEN)}, "public", "salted"),
    ({"hashed": "secret"}, "public", "required"),
    ({"hash": "$2b$31$" + "a" * 53, "public": PUBLIC}, "hash", "cost"),
    ({"hash": "$argon2id$v=19$m=2000000,t=1,p=1$c29tZXNhbHQ$aGFzaA", "public": PUBLIC}, "hash", "KiB"),
    ({"hash": "$argon2id$nonsense", "public": PUBLIC}, "hash", "well-formed"),
    ({"hash": "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$a", "public": PUBLIC}, "hash", "well-formed"),
    ({"hash": hash_bcrypt(TOKEN), "public": "k" * 41}, "public", "72"),
    ({"public": "a_b_c_d_e_f_g_h_i"}, "public", "separator"),
    ({"hourly_limt": 5}, None, "unknown column"),
    ({"hourly_limit": "0"}, "hourly_limit", "greater"),
    ({"scopes": "unknown"}, "scopes", "must be among"),
    ({"created_at": "2999-01-01T00:00:00Z"}, "created_at", "future"),
    ({"metadata": "{"}, "metadata", "JSON"),
    ({"owner_id": ""}, "owner_id", "required"),
]


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_every_invalid_line_is_named_and_nothing_is_written(make: MakeAuth) -> None:
    async with make(scopes={"a:read": ""}) as auth:
        lines = [record(scopes="a:read"), *(record(**values) for values, _, _ in BAD), record()]
        with pytest.raises(ImportRefused) as refused:
            await auth.keys.import_keys(lines)
        found = [(bad.line, bad.field) for bad in refused.value.bad_lines]
        expected = [(number, field) for number, (_, field, _) in enumerate(BAD, 2)]
        assert found == [*expected, (len(lines), None)]  # the last has the token of the first
        for bad, (_, _, words) in zip(refused.value.bad_lines, BAD, strict=False):
            assert words in bad.message
        assert SECRET not in str(refused.value) + repr(refused.value.bad_lines)
        assert (await auth.keys.list()).items == []


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_keys_that_are_there_are_refused_or_skipped(make: MakeAuth) -> None:
    second = record(hash="0" * 64, expires_at="2020-01-01 00:00:00", created_at="2019-01-01T00:00:00Z", enabled="0")
    async with make() as auth:
        assert (await auth.keys.import_keys([record()], dry_run=True)).imported == 1
        assert (await auth.keys.list()).items == []
        await auth.keys.import_keys([record()])
        with pytest.raises(ImportRefused):
            await auth.keys.import_keys([record(), second])
        assert len((await auth.keys.list()).items) == 1
        outcome = await auth.keys.import_keys([record(), second], skip_existing=True)
        assert (outcome.imported, outcome.skipped) == (1, 1)
        key = await auth.keys.get(outcome.key_ids[0])
        assert (key.status, key.created_at.year, key.hint) == ("disabled", 2019, "…")


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_of_two_concurrent_imports_of_one_token_the_later_is_refused(
    make: MakeAuth, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def find_nothing(*_: Any) -> set[str]:
        return set()

    monkeypatch.setattr(ImportStore, "find_known", find_nothing)  # the other one had not written when this one looked
    async with make() as auth:
        await auth.keys.import_keys([record()])
        with pytest.raises(ImportRefused, match=r"^1 mistake: another import has just written") as refused:
            await auth.keys.import_keys([record(hash="0" * 64), record()])
        assert len(await auth.keys.list()) == 1
    _complain(refused.value, as_json=False)
    assert capsys.readouterr().err.startswith("another import has just written")


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_a_bearer_value_with_an_imported_prefix_is_a_key(make: MakeAuth, make_client: Any) -> None:
    auth = make()
    app = FastAPI(dependencies=[Depends(auth.require_key)])
    auth.install(app)
    app.get("/")(lambda: "ok")
    async with auth, make_client(app) as client:
        await auth.keys.import_keys([record()])
        answer = await client.get("/", headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        assert answer.headers["ratelimit"]
        answer = await client.get("/", headers={"authorization": f"Bearer {SECRET}"})
        assert answer.json()["code"] == "missing_api_key"


@pytest.mark.parametrize("prefix", ["", "k", "ks_x", "a b", "é", "x" * 65])
def test_an_invalid_prefix_is_rejected(prefix: str) -> None:
    with pytest.raises(SetupError):
        KeyAuthSettings(_env_file=None, imported_prefixes=(prefix,))


def test_bcrypt_reads_72_bytes_as_when_the_hash_was_created() -> None:
    long = "x" * 100
    assert foreign.verify("bcrypt", hash_bcrypt(long[:72]), foreign.hashed_part(long, "bcrypt", None))


def test_files_are_read_with_their_line_numbers(tmp_path: Any) -> None:
    sheet = tmp_path / "keys.csv"
    sheet.write_text('owner_id,name,hash\nada,"two\nlines",h\nada\n\nada,x,"open', encoding="utf-8-sig")
    lines = _read(str(sheet), "csv")
    assert [(line.number, line.problem is None) for line in lines] == [(3, True), (4, False), (6, False)]
    rows = tmp_path / "keys.jsonl"
    rows.write_text(json.dumps(record()) + "\n\n[]\n")
    assert [(line.number, line.problem is None) for line in _read(str(rows), "jsonl")] == [(1, True), (3, False)]


LONG = f"kg_two_{'A' * 80}"
FIRST_USES: dict[str, tuple[dict[str, Any], str, str]] = {
    "another separator": (
        {"public": PUBLIC, "hashed": "secret", "hash": hashlib.sha256(SECRET.encode()).hexdigest()},
        f"{PUBLIC}.{SECRET}",
        TOKEN,
    ),
    "another tail": ({"public": "kg_two", "hash": hash_bcrypt(LONG[:72])}, f"{LONG[:72]}cut", LONG),
    "a longer tail": ({"public": "kg_two", "hash": hash_bcrypt(LONG[:72])}, f"{LONG}more", LONG),
    "a shorter tail": ({"public": "kg_two", "hash": hash_bcrypt(LONG[:72])}, LONG[:72], LONG),
    "another tail of the secret": (
        {"public": "kg_two", "hashed": "secret", "hash": hash_bcrypt("A" * 72)},
        f"kg_two:{'A' * 72}cut",
        LONG,
    ),
}


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
@pytest.mark.parametrize("case", FIRST_USES)
async def test_the_token_that_was_issued_works_whatever_copy_was_used_first(make: MakeAuth, case: str) -> None:
    values, sent_first, issued = FIRST_USES[case]
    async with make() as auth:
        (key_id,) = (await auth.keys.import_keys([record(**values, last4=issued[-4:])])).key_ids
        await authenticate(auth, sent_first)
        await settle(auth)
        assert (await row_of(auth)).hash.startswith("$argon2id$")
        assert (await authenticate(auth, issued)).id == key_id
        assert (await auth.keys.get(key_id)).hint == f"…{issued[-4:]}"
    async with make() as other:
        assert (await authenticate(other, issued)).id == key_id
        with pytest.raises(InvalidApiKey):
            await authenticate(other, issued[:60] + "x" * 20)


async def test_imported_keys_count_as_unused_from_their_import(make_auth: MakeAuth) -> None:
    clock = Clock()
    async with make_auth(imported_prefixes=("kg_",), clock=clock) as auth:
        old = {"created_at": "2024-05-01", "last_used_at": "2025-06-01T00:00:00Z"}
        (key_id,) = (await auth.keys.import_keys([record(**old)])).key_ids
        assert (await auth.keys.get(key_id)).last_used_at == datetime(2025, 6, 1, tzinfo=UTC)
        assert (await auth.keys.list(unused_for_days=1)).items == []
        clock.advance(86_400)
        assert [key.id for key in await auth.keys.list(unused_for_days=1)] == [key_id]
        with pytest.raises(ImportRefused, match="last_used_at: must not be in the future"):
            await auth.keys.import_keys([record(hash=SHA256[::-1], last_used_at="2999-01-01")])


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
@pytest.mark.parametrize("scopes", ["read,write", "read write", "read, write", '["read", "write"]'])
async def test_scopes_are_words_with_commas_or_spaces_between(make: MakeAuth, scopes: str) -> None:
    async with make() as auth:
        (key_id,) = (await auth.keys.import_keys([record(scopes=scopes)])).key_ids
        assert (await auth.keys.get(key_id)).scopes == ["read", "write"]


@pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)
async def test_an_import_reports_the_number_of_keys_with_all_scopes(make: MakeAuth) -> None:
    records = [record(hash=f"{number:064x}", scopes=scopes) for number, scopes in enumerate(["", None, "a", "*"])]
    async with make() as auth:
        for dry_run in (True, False):
            outcome = await auth.keys.import_keys(records, dry_run=dry_run)
            assert (outcome.imported, outcome.with_all_scopes) == (4, 2)


async def test_imported_secrets_end_together(make_auth: MakeAuth) -> None:
    clock = Clock()
    end = datetime.fromtimestamp(clock() + 3600, UTC)
    settings = {"imported_prefixes": ("kg_",), "imported_until": end, "block_after_failures": 2}
    async with make_auth(clock=clock, **settings) as auth:
        imported = await auth.keys.import_keys([record(), record(hash=hashlib.sha256(LONG.encode()).hexdigest())])
        assert (await auth.keys.get(imported.key_ids[0])).secrets[0].expires_at == end
        await authenticate(auth, TOKEN)
        own = await auth.keys.rotate(imported.key_ids[0], timedelta(days=1))
        await settle(auth)
        clock.advance(3600)
        for token in (TOKEN, LONG) * 3:
            with pytest.raises(ExpiredApiKey):
                await authenticate(auth, token)
        with pytest.raises(InvalidApiKey):
            await authenticate(auth, WRONG)
        assert (await authenticate(auth, own.token)).id == imported.key_ids[0]
        assert (await auth.keys.get(imported.key_ids[1])).hint.startswith("…")
