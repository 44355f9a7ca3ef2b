"""A KeyAuth with a short timeout, on a Redis server that a test kills."""

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from tests.helpers.servers import Server

TIMEOUT_S = 1.0
"""Short, because tests wait for it, but long enough for a busy machine."""


def build(database_url: str, redis: Server, **settings: object) -> KeyAuth:
    values = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "redis_timeout_s": TIMEOUT_S, **settings}
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=database_url, redis_url=redis.url, **values))
