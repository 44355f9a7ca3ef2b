"""Limiters: what an address and a key may still do. They know nothing of HTTP."""

from fastapi_keyauth.limiter.base import Ask, Decision, Limiter, Verdict
from fastapi_keyauth.limiter.cluster import ClusterLimiter
from fastapi_keyauth.limiter.memory import MemoryLimiter
from fastapi_keyauth.limiter.outage import OutageLimiter
from fastapi_keyauth.limiter.redis import RedisLimiter

__all__ = ["Ask", "ClusterLimiter", "Decision", "Limiter", "MemoryLimiter", "OutageLimiter", "RedisLimiter", "Verdict"]
