"""The measured subjects: one row of the tables each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ALL = (1, 16, 64)


@dataclass(frozen=True, slots=True)
class Subject:
    """A server to measure.

    Attributes:
        name: Short, unique name.
        label: Name in the tables.
        app: Module in ``benchmarks/apps``.
        environment: Name of a virtual environment in ``environments.py``; "" for the project's own.
        variables: Environment variables of the process.
        credentials: Which of the headers issued by the app are sent.
        status: Expected status of every response.
        connections: Numbers of connections to measure with.
        group: Table that it belongs to.
    """

    name: str
    label: str
    app: str
    environment: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    credentials: str = "valid"
    status: int = 200
    connections: tuple[int, ...] = ALL
    group: str = "peers"


def ours(
    name: str, label: str, variant: str, credentials: str = "valid", status: int = 200, group: str = "ours"
) -> Subject:
    """Return one of our own modes."""
    variables = {"BENCH_VARIANT": variant, "BENCH_GUESSES": "1" if credentials == "guesses" else "0"}
    return Subject(name, label, "ours", variables=variables, credentials=credentials, status=status, group=group)


def bare(environment: str = "") -> Subject:
    """Return the unprotected route in an environment, which that environment's subjects are compared with."""
    return Subject(f"bare-{environment}" if environment else "bare", "bare route", "bare", environment)


DICTIONARY = Subject("dictionary", "APIKeyHeader + dictionary", "dictionary", group="ours")
OURS = (
    ours("memory", "memory limiter, dependency", "memory-dependency"),
    ours("redis", "Redis, dependency", "redis-dependency"),
    ours("protect", "Redis, middleware", "redis-middleware"),
    ours("turn", "Redis, dependency, 1,000 keys in turn", "redis-turn", "many"),
)
REFUSED = (
    ours("unknown", "wrong key, unknown id, dependency", "redis-dependency", "unknown", 401, "refused"),
    ours("wrong", "wrong key, known id, dependency", "redis-dependency", "wrong", 401, "refused"),
    ours("unknown-protect", "wrong key, middleware", "redis-middleware", "unknown", 401, "refused"),
    ours("guesses", "a new wrong key each time, dependency", "redis-dependency", "guesses", 401, "refused"),
    ours("blocked", "blocked address, dependency", "redis-blocked", "valid", 429, "refused"),
    ours("blocked-protect", "blocked address, middleware", "redis-blockedmiddleware", "valid", 429, "refused"),
)
COLD = ours("cold", "first sight of a key (Argon2), dependency", "redis-cold", "many", 200, "refused")
PEERS = (
    Subject("limits", "limits 5.8, async, Redis", "peer_limits", "limits"),
    Subject("fastapi-limiter", "fastapi-limiter 0.2, Redis", "peer_fastapi_limiter", "fastapi-limiter"),
    Subject("slowapi", "slowapi 0.1.10, Redis", "peer_slowapi", "slowapi"),
    Subject("keysigil", "keysigil 0.1.2, Redis", "peer_keysigil", "keysigil"),
    Subject("keygate", "fastapi-keygate 0.5.1, Redis", "peer_keygate", "keygate"),
    Subject(
        "keyshield-cached",
        "keyshield 2.0.1, cached, delay off",
        "peer_keyshield",
        "keyshield",
        {"BENCH_VARIANT": "cached"},
    ),
    # With more connections its requests fail at SQLite's lock, so there would be nothing to compare.
    Subject(
        "keyshield",
        "keyshield 2.0.1, as it comes",
        "peer_keyshield",
        "keyshield",
        {"BENCH_VARIANT": "default"},
        connections=(1,),
    ),
)
