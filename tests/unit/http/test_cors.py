"""Which origins may read a response, and which headers say so."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_keyauth import KeyAuthSettings
from fastapi_keyauth.errors import StoreUnavailable
from fastapi_keyauth.http import cors
from fastapi_keyauth.http.cors import CorsRules
from fastapi_keyauth.http.preflight import Preflight
from tests.helpers.waiting import until

SITE, SHOP, FOREIGN = "https://site.example", "https://shop.example", "https://foreign.example"
EXPOSED = b"RateLimit, RateLimit-Policy, Retry-After"


class Store:
    """The origins of active keys."""

    def __init__(self, *origins: str) -> None:
        self.origins = frozenset(origins)
        self.reads = 0
        self.is_available = True
        self.error: Exception = StoreUnavailable("test")
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def origins_of_active_keys(self, _now: datetime) -> frozenset[str]:
        self.reads += 1
        await self.may_answer.wait()
        if not self.is_available:
            raise self.error
        return self.origins


class Rules:
    """CORS rules on a clock that the test sets."""

    def __init__(self, store: Store | None = None, **settings: Any) -> None:
        self.now_s = 1000.0
        self.store = store or Store()
        values = KeyAuthSettings(_env_file=None, **settings)
        self._rules = CorsRules(values, self.store, lambda: datetime.now(UTC), lambda: self.now_s)  # type: ignore[arg-type]  # it has what is called

    async def headers(self, origin: str, key: Any = None, *given: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        return await self._rules.add_headers([*given], origin, key)

    async def allow(self, origin: str, key: Any = None) -> bool:
        found = dict(await self.headers(origin, key))
        assert found.get(b"access-control-allow-origin") in (None, origin.encode())
        return bool(found)

    async def preflight(self, origin: str, headers: bytes | None) -> dict[bytes, bytes] | None:
        answer = await self._rules.answer_preflight(Preflight(origin, b"PATCH", headers))
        assert answer is None or answer.status_code == 204
        return None if answer is None else dict(answer.raw_headers)


def key(*origins: str) -> Any:
    return SimpleNamespace(allowed_origins=origins)


async def test_an_identified_key_allows_its_own_origins_and_no_other_keys() -> None:
    rules = Rules(Store(SHOP), allowed_origins=[SITE])
    assert [await rules.allow(origin, key()) for origin in (SITE, SHOP, FOREIGN)] == [True, False, False]
    assert [await rules.allow(origin, key(SHOP)) for origin in (SITE, SHOP, FOREIGN)] == [True, True, False]
    assert rules.store.reads == 0


async def test_without_a_key_the_origins_of_all_active_keys_are_allowed() -> None:
    rules = Rules(Store(SHOP), allowed_origins=[SITE])
    assert [await rules.allow(origin) for origin in (SITE, SHOP, FOREIGN)] == [True, True, False]


@pytest.mark.parametrize("of", [None, key()])
async def test_a_star_allows_any_origin(of: Any) -> None:
    assert await Rules(allowed_origins=["*"]).allow(FOREIGN, of)


async def test_origins_are_read_once_in_three_seconds() -> None:
    rules = Rules(Store(SHOP))
    assert await rules.allow(SHOP)
    rules.store.origins = frozenset()
    rules.now_s += 2.99
    assert await rules.allow(SHOP)
    assert rules.store.reads == 1
    rules.now_s += 0.01
    assert not await rules.allow(SHOP)
    assert rules.store.reads == 2


async def test_the_last_origins_stay_while_the_database_is_unavailable() -> None:
    rules = Rules(Store(SHOP))
    assert await rules.allow(SHOP)
    rules.store.is_available = False
    rules.now_s += 3.0
    assert [await rules.allow(SHOP) for _ in range(3)] == [True] * 3
    assert rules.store.reads == 2


async def test_an_error_that_is_not_an_outage_is_raised() -> None:
    rules = Rules(Store(SHOP))
    rules.store.is_available = False
    rules.store.error = RuntimeError("not started")
    with pytest.raises(RuntimeError, match="not started"):
        await rules.allow(SHOP)


async def test_responses_do_not_wait_for_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(Store(SHOP))
    rules.store.may_answer.clear()
    monkeypatch.setattr(cors, "WAIT_S", 0.01)
    assert [await rules.allow(SHOP) for _ in range(3)] == [False] * 3
    assert rules.store.reads == 1
    rules.store.may_answer.set()
    monkeypatch.setattr(cors, "WAIT_S", 30.0)
    await until(lambda: rules.allow(SHOP))  # the reading that hung ends


async def test_a_response_waits_for_the_first_origins() -> None:
    rules = Rules(Store(SHOP))
    rules.store.may_answer.clear()
    asyncio.get_running_loop().call_later(0.01, rules.store.may_answer.set)
    assert await rules.allow(SHOP)


async def test_the_headers_of_a_readable_response() -> None:
    given = (
        (b"Access-Control-Allow-Origin", SITE.encode()),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"ETag"),
        (b"etag", b"1"),
    )
    assert await Rules().headers(SHOP, key(SHOP), *given) == [
        (b"etag", b"1"),
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", SHOP.encode()),
        (b"access-control-expose-headers", b"ETag, " + EXPOSED),
    ]
    assert await Rules().headers(FOREIGN, key(SHOP), *given) == [*given]


@pytest.mark.parametrize("value", [SHOP.encode(), b"*"])
async def test_what_the_application_allows_is_left_unchanged(value: bytes) -> None:
    given = ((b"access-control-allow-origin", value), (b"access-control-allow-credentials", b"true"))
    assert await Rules().headers(SHOP, key(SHOP), *given) == [*given]


@pytest.mark.parametrize(
    ("vary", "is_added"),
    [(b"*", False), (b"Accept, ORIGIN", False), (b"origin", False), (b"Accept", True), (b"X-Origin", True)],
)
async def test_vary_names_the_origin_once(vary: bytes, is_added: bool) -> None:
    headers = await Rules().headers(SHOP, key(SHOP), (b"vary", vary))
    assert [value for name, value in headers if name == b"vary"] == [vary, *([b"Origin"] if is_added else [])]


@pytest.mark.parametrize(
    ("mode", "exposed"),
    [
        ("ietf", EXPOSED),
        ("legacy", b"X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After"),
        ("none", b"Retry-After"),
    ],
)
async def test_headers_that_are_sent_are_exposed(mode: str, exposed: bytes) -> None:
    headers = dict(await Rules(rate_limit_headers=mode).headers(SHOP, key(SHOP)))
    assert headers[b"access-control-expose-headers"] == exposed


async def test_the_answer_to_a_preflight_that_announces_a_key() -> None:
    rules = Rules(Store(SHOP), allowed_origins=[SITE])
    for origin in (SITE, SHOP):
        assert await rules.preflight(origin, b"content-type, API-Key") == {
            b"access-control-allow-origin": origin.encode(),
            b"access-control-allow-methods": b"PATCH",
            b"access-control-allow-headers": b"content-type, API-Key",
            b"access-control-max-age": b"5",
            b"vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        }
    assert await rules.preflight(FOREIGN, b"api-key") is None


@pytest.mark.parametrize("headers", [None, b"", b"content-type", b"x-api-key"])
async def test_a_preflight_that_announces_no_key_is_the_applications(headers: bytes | None) -> None:
    assert await Rules(allowed_origins=[SITE]).preflight(SITE, headers) is None


@pytest.mark.parametrize("accepts_bearer", [True, False])
async def test_authorization_announces_a_key_only_if_keys_are_accepted_there(accepts_bearer: bool) -> None:
    rules = Rules(allowed_origins=[SITE], accept_bearer_keys=accepts_bearer)
    assert (await rules.preflight(SITE, b"authorization") is not None) is accepts_bearer
