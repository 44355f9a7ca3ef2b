"""Limiters: what an address and a key may still do. They know nothing of HTTP."""

from fastapi_keyauth.limiter.failover import OutageLimiter
from fastapi_keyauth.limiter.memory import MemoryLimiter
from fastapi_keyauth.limiter.protocol import Ask, Decision, Limiter, Verdict
from fastapi_keyauth.limiter.redis.cluster import ClusterLimiter
from fastapi_keyauth.limiter.redis.single import RedisLimiter

__all__ = ["Ask", "ClusterLimiter", "Decision", "Limiter", "MemoryLimiter", "OutageLimiter", "RedisLimiter", "Verdict"]
