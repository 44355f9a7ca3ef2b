"""What stops a change: invalid values, too many keys, a revoked key, a lost authority. What a revocation reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_keyauth import KeyAuth
from fastapi_keyauth.domain.fields import KeyPatch, NewKey
from fastapi_keyauth.errors import InsufficientScope, InvalidField, KeyNotActive, RevokedApiKey, TooManyKeys
from fastapi_keyauth.keys.authority import TrustedCode
from fastapi_keyauth.keys.management import KeyManagement
from tests.helpers.keys import authenticate, make_key

MakeAuth = Callable[..., KeyAuth]
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
TOKENS = [{"name": "t", "limit": 5, "per": "hour", "unit": "tokens"}]
INVALID: list[tuple[str, dict[str, Any]]] = [
    ("expires_at", {"expires_at": YESTERDAY}),
    ("scopes", {"scopes": ["unknown"]}),
    ("limits", {"limits": TOKENS}),
]


def management_of(auth: KeyAuth) -> KeyManagement:
    return auth.keys._management


class LostAuthority(TrustedCode):
    """An authority that ends before the change is written."""

    async def renew(self) -> None:
        raise InsufficientScope(["keys:write"])


@pytest.mark.parametrize(("field", "values"), INVALID, ids=[field for field, _ in INVALID])
async def test_key_with_an_invalid_value_is_not_created(
    make_auth: MakeAuth, field: str, values: dict[str, Any]
) -> None:
    async with make_auth(scopes=["known"]) as auth:
        hashes: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(management_of(auth)._hasher, "hash", lambda *_: hashes.append("hashed"))
            with pytest.raises(InvalidField) as refused:
                await management_of(auth).create(NewKey(name="k", **values), "alice")
        assert refused.value.field.startswith(field)
        assert hashes == []


@pytest.mark.parametrize(("field", "values"), INVALID, ids=[field for field, _ in INVALID])
async def test_key_is_not_changed_to_an_invalid_value(make_auth: MakeAuth, field: str, values: dict[str, Any]) -> None:
    async with make_auth(scopes=["known"]) as auth:
        key = (await make_key(auth)).key
        with pytest.raises(InvalidField) as refused:
            await management_of(auth).patch(key.id, KeyPatch(**values))
        assert refused.value.field.startswith(field)
        after = await auth.keys.get(key.id)
        assert (after.expires_at, after.scopes, after.limits) == (key.expires_at, key.scopes, key.limits)


async def test_owner_id_of_a_session_is_checked_before_a_key_is_created(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        with pytest.raises(InvalidField) as refused:
            await management_of(auth).create(NewKey(name="k"), "")
        assert refused.value.field == "owner_id"


async def test_key_without_scopes_has_all_scopes_that_need_no_permission(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        for scopes, held in ((None, ["*"]), ([], []), (["a"], ["a"])):
            created = await management_of(auth).create(NewKey(name="k", scopes=scopes), "alice")
            assert list(created.key.scopes) == held


async def test_owner_with_the_maximum_number_of_keys_does_not_keep_argon2_busy(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        await make_key(auth)
        monkeypatch.setattr(management_of(auth)._hasher, "hash", None)
        with pytest.raises(TooManyKeys):
            await management_of(auth).create(NewKey(name="k"), "alice", max_keys=1)


async def test_revoked_key_is_not_changed(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id
        await auth.keys.revoke(key_id)
        with pytest.raises(KeyNotActive):
            await management_of(auth).patch(key_id, KeyPatch(name="other"))


async def test_changes_return_the_key_as_it_is_then(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id
        assert (await management_of(auth).patch(key_id, KeyPatch(name="other"))).name == "other"
        assert (await management_of(auth).revoke(key_id)).status == "revoked"


CHANGES: dict[str, Callable[[KeyManagement, str], Awaitable[Any]]] = {
    "create": lambda management, _id: management.create(NewKey(name="n"), "alice", LostAuthority()),
    "patch": lambda management, id: management.patch(id, KeyPatch(name="other"), LostAuthority()),
    "rotate": lambda management, id: management.rotate(id, timedelta(0), LostAuthority()),
    "revoke": lambda management, id: management.revoke(id, LostAuthority()),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_authority_is_read_again_just_before_a_change(make_auth: MakeAuth, change: str) -> None:
    async with make_auth() as auth:
        key = (await make_key(auth)).key
        with pytest.raises(InsufficientScope):
            await CHANGES[change](management_of(auth), key.id)
        after = await auth.keys.get(key.id)
        assert (after.name, after.status, after.secrets) == (key.name, "active", key.secrets)
        assert len((await auth.keys.list(owner_id="alice")).items) == 1


async def test_replaced_secret_is_valid_for_a_day(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id
        secrets = (await auth.keys.rotate(key_id)).key.secrets
        ends = [secret.expires_at - secrets[0].created_at for secret in secrets if secret.expires_at is not None]
        assert ends == [timedelta(hours=24)]


async def test_key_that_is_revoked_again_keeps_the_time_of_its_revocation(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id
        first = await management_of(auth).revoke(key_id)
        again = await management_of(auth).revoke(key_id)
        assert (again.status, again.revoked_at) == ("revoked", first.revoked_at)
        assert [event.event for event in (await auth.keys.events(key_id)).items] == ["revoked", "created"]


async def test_leak_is_recorded_once_and_announced_with_every_report(
    make_auth: MakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id
        announced: list[str] = []

        async def publish(key_id: str, *_: Any) -> None:
            announced.append(key_id)

        monkeypatch.setattr(management_of(auth)._outbox, "publish", publish)
        statuses, events = [], []
        for revoke in (False, False, True, True):
            await management_of(auth).record_leak(key_id, {"source": "commit"}, "scanner", revoke=revoke)
            statuses.append((await auth.keys.get(key_id)).status)
            events.append([event.event for event in (await auth.keys.events(key_id)).items])
        assert statuses == ["active", "active", "revoked", "revoked"]
        assert events == [["leaked", "created"]] * 2 + [["revoked", "leaked", "created"]] * 2
        assert announced == [key_id] * 4


async def test_hint_of_a_secret_is_the_end_of_its_token(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        created = await make_key(auth)
        (secret,) = created.key.secrets
        assert secret.hint.endswith(created.token[-4:])
        assert not secret.hint.endswith(created.token[-5:])


@pytest.mark.parametrize("include_created", [True, False])
async def test_keys_that_a_revoked_key_created_are_refused_only_if_that_was_requested(
    make_auth: MakeAuth, include_created: bool
) -> None:
    async with make_auth(max_staleness_s=3600) as auth:
        creator = (await make_key(auth)).key
        created = await auth.keys.acting_as(f"key:{creator.id}").create("bob", "k")
        for _ in range(3):  # its row is cached now, and is only read again if its owner's change is announced
            await authenticate(auth, created.token)
        await management_of(auth).revoke(creator.id, include_created=include_created)
        if include_created:
            with pytest.raises(RevokedApiKey):
                await authenticate(auth, created.token)
        assert (await auth.keys.get(created.key.id)).status == ("revoked" if include_created else "active")
        assert (await auth.keys.get(creator.id)).status == "revoked"


class SlowAuthority(TrustedCode):
    """An authority whose change has its turn, and is held back before its transaction or inside it."""

    def __init__(self, *, inside: bool = False) -> None:
        super().__init__()
        self._inside = inside
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def _wait(self) -> None:
        self.reached.set()
        await self.opened.wait()

    async def renew(self) -> None:
        if not self._inside:
            await self._wait()

    async def confirm(self, _rows: Any) -> None:
        if self._inside:
            await self._wait()


async def test_revocation_does_not_wait_for_other_changes_to_its_key(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        key_id = (await make_key(auth)).key.id
        slow = SlowAuthority()
        changing = asyncio.create_task(management_of(auth).patch(key_id, KeyPatch(name="other"), slow))
        await slow.reached.wait()
        try:
            async with asyncio.timeout(60):  # so that a revocation that waits for the change fails the test
                assert (await management_of(auth).revoke(key_id)).status == "revoked"
        finally:
            slow.opened.set()
        with pytest.raises(KeyNotActive):
            await changing


async def test_revocation_passes_a_change_that_waits_for_the_writer(make_auth: MakeAuth) -> None:
    async with make_auth() as auth:
        management = management_of(auth)
        written, changed, revoked = [(await make_key(auth)).key.id for _ in range(3)]
        slow, patching, revoking = SlowAuthority(inside=True), SlowAuthority(), SlowAuthority()
        writing = asyncio.create_task(management.patch(written, KeyPatch(name="other"), slow))
        await slow.reached.wait()
        ended: list[str] = []
        waiting: list[asyncio.Task[Any]] = []
        for name, authority, change in (
            ("change", patching, management.patch(changed, KeyPatch(name="other"), patching)),
            ("revocation", revoking, management.revoke(revoked, revoking)),
        ):
            authority.opened.set()
            waiting.append(asyncio.create_task(change, name=name))
            waiting[-1].add_done_callback(lambda done: ended.append(done.get_name()))
            await authority.reached.wait()  # it now waits for the writer, in this order
        slow.opened.set()
        await asyncio.gather(writing, *waiting)
        assert ended == ["revocation", "change"]
