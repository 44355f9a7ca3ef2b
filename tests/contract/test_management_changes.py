"""Section 7: PATCH, rotation with overlap, and revocation that is immediate."""

import asyncio
from typing import Any

import pytest

from tests.helpers.stage import HOUR_S, OpenScene, Scene, code_of, remaining_of
from tests.helpers.tokens import checksummed, secret_of

SHOP = "https://shop.example"


async def patch(scene: Scene, key_id: str, session: str, **fields: Any) -> dict[str, Any]:
    """Send a PATCH that must succeed. Return the key."""
    answer = await scene.send("PATCH", f"/api-keys/{key_id}", bearer=session, json=fields)
    assert answer.status_code == 200, answer.text
    key: dict[str, Any] = answer.json()
    return key


async def rotate(scene: Scene, key_id: str, session: str, **body: int) -> str:
    """Make a rotation that must succeed. Return the new token."""
    path = f"/api-keys/{key_id}/rotate"
    answer = await scene.send("POST", path, bearer=session, json=body)
    assert answer.status_code == 201, answer.text
    assert "no-store" in answer.headers["cache-control"]
    assert answer.json()["id"] == key_id
    token: str = answer.json()["token"]
    return token


async def answer_to(scene: Scene, token: str) -> str | None:
    """Return the code of the refusal of a token; None if it is admitted."""
    return code_of(await scene.get(token=token))


async def test_patch_changes_one_field_and_no_other(open_scene: OpenScene) -> None:
    changes: list[tuple[str, Any]] = [
        ("name", "new name"),
        ("name", "名前 🗝"),
        ("enabled", False),
        ("scopes", ["items:read"]),
        ("hourly_limit", 7),
        ("allowed_origins", [SHOP]),
        ("allowed_ips", ["192.0.2.0/24"]),
        ("metadata", {"nested": {"list": [1, None, "x"]}}),
    ]
    async with open_scene() as scene:
        session = await scene.session()
        for field, value in changes:
            key = await scene.key()
            before = (await scene.get(f"/api-keys/{key.id}", bearer=session)).json()
            patched = await patch(scene, key.id, session, **{field: value})
            after = (await scene.get(f"/api-keys/{key.id}", bearer=session)).json()
            assert patched == after, (field, value)
            assert after[field] == value
            changed = {name for name in before if before[name] != after[name]}
            shown_in = {"hourly_limit": {"limits"}, "enabled": {"status"}}.get(field, set())
            assert changed <= {field, *shown_in, "updated_at"}, (field, value)


async def test_a_patch_holds_for_the_next_request(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        assert await answer_to(scene, key.token) is None
        for field, off, on, code in (
            ("enabled", False, True, "disabled_api_key"),
            ("allowed_ips", ["192.0.2.0/24"], [], "address_not_allowed"),
            ("hourly_limit", 1, 100, "rate_limit_exceeded"),
        ):
            await patch(scene, key.id, session, **{field: off})
            assert await answer_to(scene, key.token) == code
            await patch(scene, key.id, session, **{field: on})
            assert await answer_to(scene, key.token) is None
        await patch(scene, key.id, session, scopes=["items:write"])
        assert (await scene.get("/items", token=key.token)).status_code == 403
        await patch(scene, key.id, session, scopes=["items:read"])
        assert (await scene.get("/items", token=key.token)).status_code == 200
        await patch(scene, key.id, session, allowed_origins=[SHOP])
        evil = await scene.get(token=key.token, origin="https://evil.example")
        assert code_of(evil) == "origin_not_allowed"
        await patch(scene, key.id, session, expires_at=scene.clock.rfc3339(60))
        scene.clock.advance(61)
        assert await answer_to(scene, key.token) == "expired_api_key"


async def test_an_empty_list_clears_an_allow_list(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        key = await scene.key(allowed_origins=[SHOP], allowed_ips=["192.0.2.0/24"])
        patched = await patch(scene, key.id, session, allowed_origins=[], allowed_ips=[])
        assert (patched["allowed_origins"], patched["allowed_ips"]) == ([], [])
        answer = await scene.get(token=key.token, origin="https://evil.example")
        assert answer.status_code == 200


async def test_the_old_secret_works_until_the_overlap_ends(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=1) as scene:
        key, session = await scene.key(), await scene.session()
        new = await rotate(scene, key.id, session, overlap_s=60)
        assert new != key.token
        assert new == checksummed(new[:-6])
        assert new.split("_")[:3] == key.token.split("_")[:3]
        assert secret_of(new) != secret_of(key.token)
        for token in (key.token, new):
            assert await answer_to(scene, token) is None
        scene.clock.advance(59)
        assert await answer_to(scene, key.token) is None
        scene.clock.advance(2)
        for _ in range(3):
            assert await answer_to(scene, key.token) == "expired_api_key"
        assert await answer_to(scene, new) is None


async def test_without_overlap_the_old_secret_ends_immediately(open_scene: OpenScene) -> None:
    async with open_scene(block_after_failures=1) as scene:
        key, session = await scene.key(), await scene.session()
        assert await answer_to(scene, key.token) is None
        new = await rotate(scene, key.id, session, overlap_s=0)
        codes = await asyncio.gather(*(answer_to(scene, key.token) for _ in range(10)))
        assert set(codes) == {"expired_api_key"}
        assert await answer_to(scene, new) is None


async def test_the_overlap_is_a_day_by_default(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        await rotate(scene, key.id, session)
        scene.clock.advance(86400 - 1)
        assert await answer_to(scene, key.token) is None
        scene.clock.advance(2)
        assert await answer_to(scene, key.token) == "expired_api_key"


async def test_an_overlap_never_outlives_the_key(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        key = await scene.key(expires_at=scene.clock.moment(100))
        new = await rotate(scene, key.id, session, overlap_s=HOUR_S)
        scene.clock.advance(99)
        assert [await answer_to(scene, token) for token in (key.token, new)] == [None, None]
        scene.clock.advance(2)
        for token in (key.token, new):
            assert await answer_to(scene, token) == "expired_api_key"


async def test_both_secrets_share_the_limit(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        key = await scene.key(hourly_limit=4)
        await scene.spend(key.token, 2)
        new = await rotate(scene, key.id, session, overlap_s=600)
        assert remaining_of(await scene.get(token=new)) == 1
        assert remaining_of(await scene.get(token=key.token)) == 0
        assert await answer_to(scene, new) == "rate_limit_exceeded"


async def test_at_most_two_secrets_are_alive(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        tokens = [key.token]
        for _ in range(3):
            scene.clock.advance(10)
            tokens.append(await rotate(scene, key.id, session, overlap_s=HOUR_S))
        codes = [await answer_to(scene, token) for token in tokens]
        assert codes == ["expired_api_key", "expired_api_key", None, None]
        secrets = (await scene.get(f"/api-keys/{key.id}", bearer=session)).json()["secrets"]
        for secret in secrets:
            assert set(secret) >= {"hint", "created_at", "expires_at", "last_used_at"}
        hints = [secret["hint"] for secret in secrets[:2]]
        for hint, token in zip(hints, tokens[:1:-1], strict=True):
            assert hint.endswith((token[-4:], secret_of(token)[-4:]))
        times = [secret["created_at"] for secret in secrets]
        assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("state", ["disabled", "revoked", "expired"])
async def test_only_an_active_key_can_be_rotated(open_scene: OpenScene, state: str) -> None:
    async with open_scene() as scene:
        session = await scene.session()
        key = await scene.key(expires_at=scene.clock.moment(60))
        if state == "disabled":
            await patch(scene, key.id, session, enabled=False)
        elif state == "revoked":
            await scene.send("DELETE", f"/api-keys/{key.id}", bearer=session)
        else:
            scene.clock.advance(61)
        path = f"/api-keys/{key.id}/rotate"
        answer = await scene.send("POST", path, bearer=session, json={"overlap_s": 0})
        assert (answer.status_code, code_of(answer)) == (409, "key_not_active")
        assert await answer_to(scene, key.token) == f"{state}_api_key"


async def test_revoking_twice_is_one_revocation_and_the_row_stays(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        assert await answer_to(scene, key.token) is None
        path = f"/api-keys/{key.id}"
        first = await scene.send("DELETE", path, bearer=session)
        assert (first.status_code, first.content) == (204, b"")
        row = (await scene.get(path, bearer=session)).json()
        assert row["status"] == "revoked"
        assert row["revoked_at"] is not None
        scene.clock.advance(5)
        assert (await scene.send("DELETE", path, bearer=session)).status_code == 204
        again = (await scene.get(path, bearer=session)).json()
        assert again["revoked_at"] == row["revoked_at"]


async def test_nothing_brings_a_revoked_key_back(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        new = await rotate(scene, key.id, session, overlap_s=HOUR_S)
        path = f"/api-keys/{key.id}"
        await scene.send("DELETE", path, bearer=session)
        for body in ({"enabled": True}, {"expires_at": scene.clock.rfc3339(HOUR_S)}):
            answer = await scene.send("PATCH", path, bearer=session, json=body)
            assert answer.status_code in (200, 409)
        scene.clock.advance(2)
        for token in (key.token, new):
            assert await answer_to(scene, token) == "revoked_api_key"


@pytest.mark.parametrize("change", ["delete", "disable", "rotate"])
async def test_no_request_after_the_answer_is_admitted(open_scene: OpenScene, change: str) -> None:
    """Requests run continuously; all that start after the response are refused."""
    async with open_scene() as scene:
        key, session = await scene.key(), await scene.session()
        answered = asyncio.Event()

        async def keep_asking() -> list[str | None]:
            while not answered.is_set():
                await answer_to(scene, key.token)
            return [await answer_to(scene, key.token) for _ in range(5)]

        askers = [asyncio.create_task(keep_asking()) for _ in range(5)]
        await asyncio.sleep(0)
        if change == "delete":
            await scene.send("DELETE", f"/api-keys/{key.id}", bearer=session)
        elif change == "disable":
            await patch(scene, key.id, session, enabled=False)
        else:
            await rotate(scene, key.id, session, overlap_s=0)
        answered.set()
        codes = {code for asker in askers for code in await asker}
        expected = {"delete": "revoked", "disable": "disabled", "rotate": "expired"}[change]
        assert codes == {f"{expected}_api_key"}
