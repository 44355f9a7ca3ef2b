"""Every finding in the order of checks, and requests that produce it."""

from typing import Any

import httpx

from tests.helpers.stage import ELSEWHERE, Issued, Scene
from tests.helpers.tokens import forge, spoiled

KEY_ORIGIN = "https://shop.example"


EVIL_ORIGIN = "https://evil.example"


LIMIT = 1000


# defect -> status, code, whether it is a failed attempt, units that it uses
FINDINGS: dict[str, tuple[int, str, bool, int]] = {
    "missing": (401, "missing_api_key", False, 0),
    "blocked": (429, "address_blocked", False, 0),
    "malformed": (401, "malformed_api_key", True, 0),
    "unknown id": (401, "invalid_api_key", True, 0),
    "wrong secret": (401, "invalid_api_key", True, 0),
    "disabled": (401, "disabled_api_key", False, 0),
    "revoked": (401, "revoked_api_key", False, 0),
    "expired": (401, "expired_api_key", False, 0),
    "wrong origin": (401, "origin_not_allowed", False, 0),
    "wrong address": (401, "address_not_allowed", False, 0),
    "capped": (429, "rate_limit_exceeded", False, 0),
    "no session": (403, "session_required", False, 1),
    "bad session": (401, "invalid_session", False, 1),
    "key lacks scope": (403, "insufficient_scope", False, 1),
    "session lacks scope": (403, "insufficient_scope", False, 1),
}


ROWS = [
    {"missing"},
    {"blocked"},
    {"malformed"},
    {"unknown id", "wrong secret"},
    {"disabled", "revoked", "expired"},
    {"wrong origin", "wrong address"},
    {"capped"},
    {"no session"},
    {"bad session"},
    {"key lacks scope", "session lacks scope"},
]


OF_THE_TOKEN = {"malformed", "unknown id", "wrong secret"}


OF_THE_KEY = OF_THE_TOKEN | {
    "disabled",
    "revoked",
    "expired",
    "wrong origin",
    "wrong address",
    "capped",
    "key lacks scope",
}


def row_of(defect: str) -> int:
    """Return the index of the table's row, from 0."""
    return next(number for number, row in enumerate(ROWS) if defect in row)


async def request_with(scene: Scene, *defects: str) -> tuple[Issued, dict[str, Any]]:
    """Return a key, and the arguments of a request with exactly these defects."""
    fields: dict[str, Any] = {"scopes": ["items:read"], "hourly_limit": LIMIT}
    if "key lacks scope" in defects:
        fields["scopes"] = ["items:write"]
    if "wrong origin" in defects:
        fields["allowed_origins"] = [KEY_ORIGIN]
    if "capped" in defects:
        fields["hourly_limit"] = 1
    key = await scene.key(**fields)
    if "capped" in defects:
        assert await scene.spend(key.token) == [200]
    if "wrong address" in defects:
        await scene.auth.keys.update(key.id, allowed_ips=["192.0.2.0/24"])
    if "disabled" in defects:
        await scene.auth.keys.update(key.id, enabled=False)
    if "revoked" in defects:
        await scene.auth.keys.revoke(key.id)
    if "expired" in defects:
        await scene.auth.keys.update(key.id, expires_at=scene.clock.moment(60))
        scene.clock.advance(61)
    session_scopes = ("items:write",) if "session lacks scope" in defects else ("*",)
    request: dict[str, Any] = {
        "token": key.token,
        "bearer": await scene.session(scopes=session_scopes),
    }
    if "unknown id" in defects:
        request["token"] = forge()
    if "wrong secret" in defects:
        request["token"] = forge(key_id=key.id)
    if "malformed" in defects:
        request["token"] = spoiled(request["token"])
    if "missing" in defects:
        request["token"] = None
    if "wrong origin" in defects:
        request["origin"] = EVIL_ORIGIN
    if "no session" in defects:
        request["bearer"] = None
    if "bad session" in defects:
        request["bearer"] = "ks_no-such-session"
    if "blocked" in defects:
        request["address"] = ELSEWHERE
        assert set(await scene.fail(20, ELSEWHERE)) == {401, 429}
    return key, request


async def post_note(scene: Scene, request: dict[str, Any]) -> httpx.Response:
    """Send the request to a route that requires a key, a session, and the scope items:read."""
    return await scene.send("POST", "/scoped-notes", **request)
