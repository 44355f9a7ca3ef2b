"""Section 7: no caller can grant what it does not hold, by any route."""

from typing import Any

import pytest

from tests.helpers.stage import OpenScene, Scene, code_of, quota_of

# Who may do what is decided on what the store gave out; that it gives out the same is tried elsewhere.
STACKS = ("sqlite-memory",)

GRANTS = [
    ("session", "*", "*", True),
    ("session", "*", "items:read", True),
    ("session", "*", "keys:read keys:write", True),
    ("session", "*", "* keys:write", True),
    ("session", "*", "admin", False),
    ("session", "*", "items:read admin", False),
    ("session", "items:read", "items:read", True),
    ("session", "items:read", "", True),
    ("session", "items:read", "keys:read keys:write", True),
    ("session", "items:read", "*", False),
    ("session", "items:read", "items:write", False),
    ("session", "items:read", "items:read items:write", False),
    ("session", "items:read", "admin", False),
    ("session", "", "keys:read", True),
    ("session", "", "items:read", False),
    ("session", "admin", "admin", True),
    ("session", "admin", "* keys:read keys:write admin", True),
    ("key", "items:read keys:write", "items:read", True),
    ("key", "items:read keys:write", "keys:write", True),
    ("key", "items:read keys:write", "keys:read", False),
    ("key", "items:read keys:write", "items:write", False),
    ("key", "items:read keys:write", "*", False),
    ("key", "items:read keys:write", "admin", False),
    ("key", "* keys:write", "*", True),
    ("key", "* keys:write", "items:write", True),
    ("key", "* keys:write", "keys:write", True),
    ("key", "* keys:write", "keys:read", False),
    ("key", "* keys:write", "keys:*", False),
    ("key", "* keys:write", "admin", False),
    ("key", "keys:write", "items:read", False),
    ("key", "admin", "admin", True),
    ("key", "admin", "* keys:read", True),
]
NO_CALLER_NAMES_A_WILDCARD = "keys:*"
KINDS = ("session", "key")


async def quota_of_token(scene: Scene, token: str) -> int | None:
    """Return the effective limit of a key."""
    answer = await scene.get(token=token)
    assert answer.status_code == 200
    return quota_of(answer)


def refusal_of(scopes: str) -> tuple[int, ...]:
    """Return the expected refusal of a grant that exceeds the caller's scopes."""
    return (403, 422) if NO_CALLER_NAMES_A_WILDCARD in scopes else (403,)


def grants_of(kind: str) -> list[tuple[str, str, bool]]:
    """Return the scopes of each caller of that kind, the requested scopes, and whether it may grant them. All in one
    app, each with its own caller and key."""
    return [grant[1:] for grant in GRANTS if grant[0] == kind]


@pytest.mark.parametrize("kind", KINDS)
async def test_who_may_create_a_key_with_which_scopes(open_scene: OpenScene, kind: str) -> None:
    async with open_scene() as scene:
        for held, wanted, granted in grants_of(kind):
            case = f"{held!r} grants {wanted!r}"
            caller = await scene.caller(kind, held)
            body = {"name": "n", "scopes": wanted.split()}
            answer = await scene.send("POST", "/api-keys", json=body, **caller)
            if granted:
                assert answer.status_code == 201, case
                assert set(answer.json()["scopes"]) == set(wanted.split()), case
            else:
                assert answer.status_code in refusal_of(wanted), case
                assert "token" not in answer.json(), case
                if answer.status_code == 403:
                    assert code_of(answer) == "insufficient_scope", case


@pytest.mark.parametrize("kind", KINDS)
async def test_who_may_patch_a_key_to_which_scopes(open_scene: OpenScene, kind: str) -> None:
    async with open_scene() as scene:
        for held, wanted, granted in grants_of(kind):
            case = f"{held!r} grants {wanted!r}"
            target = await scene.key(scopes=[])
            caller = await scene.caller(kind, held)
            body = {"scopes": wanted.split()}
            answer = await scene.send("PATCH", f"/api-keys/{target.id}", json=body, **caller)
            assert answer.status_code in ((200,) if granted else refusal_of(wanted)), case
            expected = set(wanted.split()) if granted else set()
            assert set((await scene.auth.keys.get(target.id)).scopes) == expected, case


@pytest.mark.parametrize("kind", KINDS)
async def test_who_may_touch_a_key_with_which_scopes(open_scene: OpenScene, kind: str) -> None:
    async with open_scene(block_after_failures=1000) as scene:
        for held, target_scopes, granted in grants_of(kind):
            if NO_CALLER_NAMES_A_WILDCARD in target_scopes:
                continue
            case = f"{held!r} touches {target_scopes!r}"
            target = await scene.key(scopes=target_scopes.split())
            caller = await scene.caller(kind, held)
            path = f"/api-keys/{target.id}"
            bodies: list[dict[str, Any]] = [{"name": "taken over"}, {"scopes": []}, {"enabled": True}]
            for body in bodies:
                answer = await scene.send("PATCH", path, json=body, **caller)
                assert answer.status_code == (200 if granted else 403), case
                if not granted:
                    assert code_of(answer) == "insufficient_scope", case
                await scene.auth.keys.update(target.id, scopes=target_scopes.split())
            answer = await scene.send("POST", f"{path}/rotate", json={"overlap_s": 0}, **caller)
            assert answer.status_code == (201 if granted else 403), case
            if not granted:
                assert "token" not in answer.json(), case
                assert await scene.spend(target.token) == [200], case
                assert (await scene.auth.keys.get(target.id)).name == "test key", case
            answer = await scene.send("DELETE", path, **caller)
            assert answer.status_code == 204, case
            assert code_of(await scene.get(token=target.token)) in ("revoked_api_key", "expired_api_key"), case


async def test_scopes_left_out_are_those_that_the_caller_may_grant_or_must_be_named(open_scene: OpenScene) -> None:
    async with open_scene() as scene:
        for kind, held, granted in (
            ("session", "*", "*"),
            ("session", "items:read", "items:read"),
            ("session", "items:read items:write", "items:read items:write"),
            ("session", "items:read keys:read keys:write", "items:read"),
            ("session", "", None),
            ("session", "* admin", "*"),
            ("key", "items:read keys:write", "items:read"),
            ("key", "* keys:write keys:read", "*"),
            ("key", "keys:write", None),
            ("key", "items:read keys:write admin", "*"),
        ):
            case = f"a {kind} that holds {held!r}"
            caller = await scene.caller(kind, held)
            answer = await scene.send("POST", "/api-keys", json={"name": "n"}, **caller)
            if granted is None:
                assert answer.status_code == 422, case
                assert answer.json()["detail"][0]["loc"] == ["body", "scopes"], case
            else:
                assert answer.status_code == 201, case
                assert set(answer.json()["scopes"]) == set(granted.split()), case


async def test_who_may_set_which_limit(open_scene: OpenScene) -> None:
    cases: list[tuple[str, str, int | None, int, bool]] = [
        ("session", "*", None, 100, True),
        ("session", "*", None, 1, True),
        ("session", "*", None, 101, False),
        ("session", "admin", None, 5000, True),
        ("key", "* keys:write", 50, 50, True),
        ("key", "* keys:write", 50, 51, False),
        ("key", "* keys:write", 50, 100, False),
        ("key", "* keys:write", 200, 100, True),
        ("key", "* keys:write", 200, 150, False),
        ("key", "* keys:write", None, 100, True),
        ("key", "* keys:write", None, 101, False),
        ("key", "* admin", 50, 5000, True),
    ]
    async with open_scene(default_hourly_limit=100) as scene:
        for kind, scopes, own_limit, wanted, granted in cases:
            case = f"a {kind} that holds {scopes!r} and has {own_limit} sets {wanted}"
            target = await scene.key(hourly_limit=10)
            fields: dict[str, Any] = {} if own_limit is None else {"hourly_limit": own_limit}
            caller = await scene.caller(kind, scopes, **fields)
            body = {"name": "n", "hourly_limit": wanted}
            made = await scene.send("POST", "/api-keys", json=body, **caller)
            patched = await scene.send("PATCH", f"/api-keys/{target.id}", json={"hourly_limit": wanted}, **caller)
            if granted:
                assert (made.status_code, patched.status_code) == (201, 200), case
                assert await quota_of_token(scene, made.json()["token"]) == wanted, case
                assert await quota_of_token(scene, target.token) == wanted, case
            else:
                assert code_of(made) == code_of(patched) == "insufficient_scope", case
                assert await quota_of_token(scene, target.token) == 10, case


@pytest.mark.parametrize("explicit", [False, True], ids=["left out", "null"])
@pytest.mark.parametrize(
    ("default", "kind", "own_limit", "effective"),
    [
        (100, "session", None, 100),
        (100, "key", 50, 50),
        (100, "key", 200, 100),
        (None, "key", 50, 50),
        (None, "session", None, None),
    ],
)
async def test_a_limit_left_out_is_the_lower_of_the_two(
    open_scene: OpenScene,
    explicit: bool,
    default: int | None,
    kind: str,
    own_limit: int | None,
    effective: int | None,
) -> None:
    async with open_scene(default_hourly_limit=default) as scene:
        caller = await scene.caller(kind, "* keys:write", hourly_limit=own_limit)
        body: dict[str, Any] = {"name": "n", **({"hourly_limit": None} if explicit else {})}
        made = await scene.send("POST", "/api-keys", json=body, **caller)
        if explicit and made.status_code in (403, 422):
            return
        assert made.status_code == 201
        assert await quota_of_token(scene, made.json()["token"]) == effective


async def test_a_patch_to_null_lifts_no_limit_over_the_callers(open_scene: OpenScene) -> None:
    async with open_scene(default_hourly_limit=100) as scene:
        caller = await scene.caller("key", "* keys:write", hourly_limit=50)
        target = await scene.key(hourly_limit=20)
        body = {"hourly_limit": None}
        answer = await scene.send("PATCH", f"/api-keys/{target.id}", json=body, **caller)
        assert answer.status_code in (200, 403, 422)
        quota = await quota_of_token(scene, target.token)
        assert quota is not None
        assert quota <= 50


@pytest.mark.parametrize(
    ("kind", "target_limit", "granted"),
    [("key", 50, True), ("key", 51, False), ("key", 40, True), ("session", 5000, True)],
)
async def test_a_key_may_not_touch_a_key_with_a_higher_limit(
    open_scene: OpenScene, kind: str, target_limit: int, granted: bool
) -> None:
    async with open_scene() as scene:
        caller = await scene.caller(kind, "* keys:write", hourly_limit=50)
        target = await scene.key(hourly_limit=target_limit)
        path = f"/api-keys/{target.id}"
        patched = await scene.send("PATCH", path, json={"name": "new"}, **caller)
        rotated = await scene.send("POST", f"{path}/rotate", json={}, **caller)
        expected = (200, 201) if granted else (403, 403)
        assert (patched.status_code, rotated.status_code) == expected
        assert (await scene.send("DELETE", path, **caller)).status_code == 204


async def test_a_catalog_of_scopes_limits_the_scopes_of_keys(open_scene: OpenScene) -> None:
    catalogue = {"items:read": "Read items.", "items:write": "Change items."}
    async with open_scene(scopes=catalogue) as scene:
        caller = await scene.caller("session", "*")
        for scopes, statuses in (
            (["items:read"], (201,)),
            (["*"], (201,)),
            (["keys:read", "keys:write"], (201,)),
            (["items:raed"], (403, 422)),
        ):
            body = {"name": "n", "scopes": scopes}
            answer = await scene.send("POST", "/api-keys", json=body, **caller)
            assert answer.status_code in statuses, scopes
