"""The limiter that the settings ask for."""

import time
from collections.abc import Callable

from fastapi_keyauth.limiter.failover import FailoverLimiter
from fastapi_keyauth.limiter.memory import MemoryLimiter
from fastapi_keyauth.limiter.protocol import Limiter, Policy
from fastapi_keyauth.limiter.redis.cluster import ClusterLimiter
from fastapi_keyauth.limiter.redis.single import SingleNodeLimiter
from fastapi_keyauth.settings.redis_urls import parse_redis_url
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.telemetry.observer import Observer


def build_limiter(settings: KeyAuthSettings, clock: Callable[[], float] | None, observer: Observer) -> Limiter:
    """A limiter that has not connected yet.

    Args:
        settings: what it is to be.
        clock: seconds since 1970, in place of Redis's own clock or of this host's; for tests.
        observer: told of outages and of each call.
    """
    policy = Policy.of(settings)
    local_clock = time.time if clock is None else clock
    if settings.redis_url is None:
        return MemoryLimiter(policy, settings.max_staleness_s, local_clock)
    namespace = f"keyauth:{settings.key_prefix}"
    answered = observer.metrics.answered
    kind = ClusterLimiter if parse_redis_url(settings.redis_url).kind == "cluster" else SingleNodeLimiter
    primary = kind(settings.redis_url, policy, namespace, settings.redis_timeout_s, clock, answered)
    fallback = MemoryLimiter(policy, 0, local_clock) if settings.on_limiter_outage == "local" else None
    return FailoverLimiter(primary, fallback, observer)
