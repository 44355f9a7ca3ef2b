"""Limiters, built from the settings."""

import time
from collections.abc import Callable

from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.limiter.failover import FailoverLimiter
from fastapi_keyauth.limiter.memory import MemoryLimiter
from fastapi_keyauth.limiter.protocol import Limiter, Policy
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase
from fastapi_keyauth.limiter.redis.batcher import Answered
from fastapi_keyauth.limiter.redis.cluster import ClusterLimiter
from fastapi_keyauth.limiter.redis.single import SingleNodeLimiter
from fastapi_keyauth.settings.redis_urls import parse_redis_url
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.telemetry.counters import Counters
from fastapi_keyauth.telemetry.observer import Observer

Clock = Callable[[], float]
"""Returns seconds since 1970."""


def build_limiter(settings: KeyAuthSettings, clock: Clock | None, observer: Observer) -> Limiter:
    """Build the limiter of an application. It is not connected yet.

    Args:
        settings: The settings. Without ``redis_url``, the limiter is in memory.
        clock: Seconds since 1970, in place of the clock of Redis and of this host; for tests.
        observer: Notified of outages and of each call.

    Raises:
        SetupError: If ``redis_url`` is invalid.
    """
    policy = Policy.of(settings)
    local_clock = time.time if clock is None else clock
    if settings.redis_url is None:
        monotonic = time.monotonic if clock is None else clock
        return MemoryLimiter(policy, settings.max_staleness_s, local_clock, monotonic)
    primary = build_redis_limiter(settings, clock, observer.metrics.answered, observer.metrics.counters)
    fallback = MemoryLimiter(policy, 0, local_clock) if settings.on_limiter_outage == "local" else None
    return FailoverLimiter(primary, fallback, observer, settings.silenced_checks)


def build_redis_limiter(
    settings: KeyAuthSettings, clock: Clock | None, answered: Answered, counters: Counters | None = None
) -> RedisLimiterBase:
    """Build a limiter in Redis alone, without a fallback. It is not connected yet.

    Args:
        settings: The settings; ``redis_url`` must be set.
        clock: Seconds since 1970, in place of Redis's own clock; for tests.
        answered: Called after each call to Redis.
        counters: Where leases are counted.

    Raises:
        SetupError: If ``redis_url`` is missing or invalid.
    """
    if settings.redis_url is None:
        raise SetupError("The setting redis_url is missing.")
    kind = ClusterLimiter if parse_redis_url(settings.redis_url).kind == "cluster" else SingleNodeLimiter
    namespace = f"keyauth:{settings.key_prefix}"
    return kind(
        settings.redis_url,
        Policy.of(settings),
        namespace,
        settings.redis_timeout_s,
        clock,
        answered,
        settings.units,
        settings.lease_ms,
        counters,
    )
