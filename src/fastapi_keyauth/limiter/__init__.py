"""Limiters: failed attempts of addresses, and units of keys and owners. They know nothing of HTTP."""

from fastapi_keyauth.limiter.failover import FailoverLimiter
from fastapi_keyauth.limiter.memory import MemoryLimiter
from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Limiter, Verdict
from fastapi_keyauth.limiter.redis.cluster import ClusterLimiter
from fastapi_keyauth.limiter.redis.single import SingleNodeLimiter

__all__ = [
    "ClusterLimiter",
    "Decision",
    "FailoverLimiter",
    "LimitCheck",
    "Limiter",
    "MemoryLimiter",
    "SingleNodeLimiter",
    "Verdict",
]
