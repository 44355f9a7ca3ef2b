"""OpenTelemetry: counters, timings and spans, without secrets."""

import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from fastapi_keyauth import KeyAuth, KeyAuthSettings, KeyPrincipal, SetupError, Telemetry
from fastapi_keyauth.telemetry import providers as telemetry
from fastapi_keyauth.telemetry.counters import Metrics
from tests.conftest import Stack
from tests.helpers.keys import authenticate, make_key
from tests.helpers.opentelemetry_lab import Lab
from tests.helpers.servers import Server
from tests.helpers.session import Servers
from tests.helpers.waiting import until

CHEAP = {"argon2_time_cost": 1, "argon2_memory_kib": 8}
pytestmark = pytest.mark.parametrize("stack", ["sqlite-memory"], indirect=True)


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.tracers.shutdown()


def build(stack: Stack, lab: Lab, **settings: Any) -> KeyAuth:
    return KeyAuth(KeyAuthSettings(_env_file=None, **{**stack.settings, **CHEAP, **settings}), telemetry=lab.telemetry)


async def test_requests_are_counted_by_outcome_and_the_cache_by_result(
    stack: Stack, lab: Lab, make_client: Callable[..., httpx.AsyncClient]
) -> None:
    auth = build(stack, lab, block_after_failures=2)
    app = FastAPI()
    auth.install(app)

    @app.get("/models")
    async def models(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> str:
        return key.name

    async with auth:
        client = make_client(app)
        made = await auth.keys.create("ada", "n", hourly_limit=4)
        for _ in range(3):
            await client.get("/models", headers={"api-key": made.token})
        await auth.keys.update(made.key.id, name="m")
        for _ in range(3):
            await client.get("/models", headers={"api-key": made.token})
        for _ in range(3):
            await client.get("/models", headers={"api-key": "nonsense"})
        await client.get("/models")
    seen = lab.read()
    assert seen["keyauth.requests"] == {
        "ka admitted": 4,
        "ka rate_limit_exceeded": 2,
        "ka malformed_api_key": 2,
        "ka address_blocked": 1,
        "ka missing_api_key": 1,
    }
    # The second request finds that nobody has proof of the row that the first one read, and reads it again.
    assert seen["keyauth.cache.lookups"] == {"ka hit": 1, "ka miss": 1, "ka stale": 2}
    assert seen["keyauth.hash.duration"] == {"ka create": 1, "ka verify": 1}
    assert seen["keyauth.events.dropped"] == {"ka": 0}
    assert seen["keyauth.leases"] == {"ka": 0}


async def test_leases_are_counted_by_what_became_of_them(
    stack: Stack, lab: Lab, start_valkey: Callable[..., Server]
) -> None:
    async with build(stack, lab, redis_url=start_valkey().url, redis_timeout_s=5, lease_ms=100) as auth:
        made = await make_key(auth)
        for _ in range(40):
            await authenticate(auth, made.token)
    seen = lab.read()
    units = seen["keyauth.lease.units"]
    assert units["ka used"] > 20
    assert units["ka leased"] == units["ka used"] + units["ka returned"] + units["ka forfeited"]
    assert units["ka used"] - seen["keyauth.leases"]["ka"] <= seen["keyauth.lease.trips_saved"]["ka"] < units["ka used"]
    assert seen["keyauth.limiter.call.duration"]["ka"] < 30


async def test_calls_to_redis_are_timed_and_outages_counted(
    stack: Stack, lab: Lab, start_valkey: Callable[..., Server]
) -> None:
    redis = start_valkey()
    async with build(stack, lab, redis_url=redis.url, redis_timeout_s=5) as auth:
        made = await make_key(auth)
        for _ in range(3):
            await authenticate(auth, made.token)
        before = lab.read()
        redis.kill()
        await authenticate(auth, made.token)
        after = lab.read()
        redis.restart()
        await until(lambda: _is_active(lab, "redis", 0))
    # The probe at the start; a look and a unit for each of two requests that read the row; one call for the third.
    assert before["keyauth.limiter.call.duration"] == {"ka": 6}
    assert before["keyauth.limiter.call.requests"] == {"ka": 6}
    assert before["keyauth.outages"] == {}
    assert before["keyauth.outages.active"] == {"ka redis": 0, "ka database": 0}
    assert after["keyauth.outages.active"] == {"ka redis": 1, "ka database": 0}
    failed = {name: count for name, count in after["keyauth.limiter.call.duration"].items() if name != "ka"}
    assert len(failed) == 1
    assert list(failed) == [name for name in failed if name.endswith("Error")]
    assert after["keyauth.outages"] == {"ka redis": 1}


async def _is_active(lab: Lab, part: str, count: int) -> bool:
    return bool(lab.read()["keyauth.outages.active"][f"ka {part}"] == count)


async def test_several_keyauths_in_a_process_are_distinguished_and_equal_ones_are_added(stack: Stack, lab: Lab) -> None:
    async with build(stack, lab) as one, build(stack, lab) as same, build(stack, lab, key_prefix="other") as other:
        for auth in (one, same, other):
            await authenticate(auth, (await make_key(auth)).token)
    assert lab.read()["keyauth.cache.lookups"] == {
        "ka hit": 0,
        "ka miss": 2,
        "ka stale": 0,
        "other hit": 0,
        "other miss": 1,
        "other stale": 0,
    }


async def test_a_request_that_is_traced_gets_spans_below_its_own_and_others_get_none(
    stack: Stack, lab: Lab, servers: Servers
) -> None:
    async with build(stack, lab, redis_url=servers.fresh_redis_url("valkey")) as auth:
        made = await make_key(auth)
        await authenticate(auth, made.token)
        assert lab.spans.get_finished_spans() == ()  # no span of a request, so nothing to hang ours on
        again = await auth.keys.rotate(made.key.id)
        with lab.tracers.get_tracer("test").start_as_current_span("request"):
            await authenticate(auth, again.token)
    spans = {span.name: span for span in lab.spans.get_finished_spans()}
    request = spans.pop("request")
    assert set(spans) == {"keyauth.limiter.take", "keyauth.read_key", "keyauth.verify"}
    secret = again.token.split("_")[3]
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert (span.attributes or {})["keyauth.key_prefix"] == "ka"
        assert secret[:43] not in span.to_json()
    assert (spans["keyauth.limiter.take"].attributes or {})["keyauth.verdict"] == "admitted"
    assert (spans["keyauth.read_key"].attributes or {})["keyauth.key_id"] == made.key.id


async def test_it_can_be_turned_off_and_costs_only_integers_if_it_is_not_installed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = KeyAuthSettings(_env_file=None, **stack.settings, **CHEAP)
    assert type(KeyAuth(settings, telemetry=False)._parts.metrics) is Metrics
    monkeypatch.setattr(telemetry, "otel", None)
    async with KeyAuth(settings) as auth:
        assert type(auth._parts.metrics) is Metrics
        await authenticate(auth, (await make_key(auth)).token)
        assert auth._parts.metrics.counters.admitted_by_row == 1
    with pytest.raises(SetupError, match="extra 'otel'"):
        KeyAuth(settings, telemetry=Telemetry())


async def test_without_a_configured_sdk_nothing_is_wrapped_around_the_limiter(stack: Stack, servers: Servers) -> None:
    redis_url = servers.fresh_redis_url("valkey")
    settings = KeyAuthSettings(_env_file=None, **{**stack.settings, **CHEAP, "redis_url": redis_url})
    async with KeyAuth(settings) as auth:
        assert auth._parts.authenticator.limiter is auth._parts.limiter


def test_no_module_but_one_needs_opentelemetry(stack: Stack) -> None:
    users = [
        name
        for name, module in sys.modules.items()
        if name.startswith("fastapi_keyauth")
        and any(getattr(value, "__name__", "").startswith("opentelemetry") for value in vars(module).values())
    ]
    assert users == ["fastapi_keyauth.telemetry.opentelemetry"]
