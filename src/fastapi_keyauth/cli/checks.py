"""The checks of ``keyauth check``, one function each. None of them changes anything permanently."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from sqlalchemy import text

from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.cli.db import describe
from fastapi_keyauth.cli.source import app_reference, describe_source, load_settings
from fastapi_keyauth.errors import KeyAuthError, LimiterUnavailable, SetupError
from fastapi_keyauth.limiter.factory import build_redis_limiter
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase
from fastapi_keyauth.limiter.redis.errors import is_rejection
from fastapi_keyauth.limiter.redis.server_info import MAX_CLOCK_DIFFERENCE_S
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.settings.urls import masked_url
from fastapi_keyauth.store import Database, schema
from fastapi_keyauth.store.upgrade import has_been_made
from fastapi_keyauth.store.write_check import find_write_refusal
from fastapi_keyauth.telemetry.providers import build_metrics

SLOW_HASH_MS = 500.0
_PACKAGES = ("fastapi-keyauth", "fastapi", "sqlalchemy", "redis", "argon2-cffi", "alembic")
_UNKNOWN_APP = (
    "These are the settings of KEYAUTH_* and .env. Settings that the application has in code are not known here: check"
    " them with keyauth --app module:attribute check."
)

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One result. With the level ``error`` the application would not start, or not work."""

    name: str
    level: Level
    says: str


Check = Callable[[KeyAuthSettings], AsyncIterator[Finding]]


def check_settings() -> tuple[KeyAuthSettings | None, list[Finding]]:
    """Return the settings, or None if one is invalid, and findings: whose they are, and which are risky."""
    try:
        settings = load_settings()
    except KeyAuthError as error:
        return None, [Finding("settings", "error", str(error))]
    if app_reference.get() is None:
        source = Finding("source", "warning", _UNKNOWN_APP)
    else:
        source = Finding("source", "ok", describe_source(settings) or "")
    warnings = [Finding("settings", "warning", warning) for warning in settings.dangers()]
    return settings, [source, *(warnings or [Finding("settings", "ok", "All settings are valid, and none is risky.")])]


def check_versions() -> Iterator[Finding]:
    """Report the versions of Python and of the packages that matter."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("versions", "ok", ", ".join([f"Python {python}", *(f"{name} {version(name)}" for name in _PACKAGES)]))


async def check_database(settings: KeyAuthSettings) -> AsyncIterator[Finding]:
    """Check the database's response time, its tables' revision, the role's permissions and the clock."""
    where = masked_url(settings.database_url)
    if not has_been_made(settings.database_url):
        says = f"{where} does not exist yet; the first start creates it. Is this the application's folder?"
        yield Finding("database", "warning", says)
        return
    database = Database(settings.database_url)
    query = "SELECT sqlite_version(), 0" if database.is_sqlite else "SHOW server_version"
    try:
        async with database.opening(), database.read() as connection:
            product = (await connection.execute(text(query))).scalar_one()
            began = time.perf_counter()
            await connection.execute(text("SELECT 1"))
            answer_ms = (time.perf_counter() - began) * 1000
            name = "SQLite" if database.is_sqlite else "PostgreSQL"
            yield Finding("database", "ok", f"{name} {product} at {where} responds in {answer_ms:.1f} ms.")
            revision = await connection.run_sync(schema.find_revision)
            yield _judge_tables(revision)
            if revision is not None:
                # The role may lack the permission to read.
                await connection.execute(text("SELECT 1 FROM keyauth_keys WHERE id = ''"))
            refusal = await find_write_refusal(connection, settings.database_url)
            if refusal is not None:
                yield Finding("database", "error", f"{where} {refusal}")
            if not database.is_sqlite:
                now = (await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one()
                yield _judge_clock(float(now) - time.time())
    except KeyAuthError as error:
        yield Finding("database", "error", str(error))
    finally:
        await database.close()


def _judge_tables(revision: str | None) -> Finding:
    says = {
        "empty": "The tables do not exist yet; the first start creates them.",
        "newest": f"The tables have the newest revision, {schema.NEWEST}.",
        "ahead": f"The tables have revision {revision}, which a newer version of the package created.",
        "behind": f"The tables have revision {revision}, but {schema.NEWEST} is required: run `keyauth db upgrade`.",
    }
    state = describe(revision)
    levels: dict[str, Level] = {"ahead": "warning", "behind": "error"}
    return Finding("tables", levels.get(state, "ok"), says[state])


async def check_redis(settings: KeyAuthSettings) -> AsyncIterator[Finding]:
    """Check whether Redis accepts what the limiter writes, its response time, its eviction policy and its clock."""
    if settings.redis_url is None:
        says = "No redis_url: each process keeps rate limits and blocks on its own. That is right for one worker."
        yield Finding("redis", "ok", says)
        return
    try:
        server = build_redis_limiter(settings, None, build_metrics(settings.key_prefix, False).answered)
    except SetupError as error:
        yield Finding("redis", "error", str(error))
        return
    try:
        await server.start()
        finding = await _inspect(server)
        warnings = await server.run_checks()
    except LimiterUnavailable as error:
        says = "rejects the connection" if is_rejection(error) else "does not respond"
        yield Finding("redis", "error", f"The Redis server at {server.where} {says} ({error}).")
        return
    finally:
        await server.close()
    yield finding
    for warning in warnings:
        yield Finding("redis", "warning", warning.sentence)
    yield Finding("leases", "ok", _describe_leases(settings.lease_ms))


def _describe_leases(lease_ms: int) -> str:
    if not lease_ms:
        return "lease_ms is 0: every request with a key asks Redis. Workers and scripts must agree on that."
    return (
        f"lease_ms is {lease_ms}: workers admit busy keys for up to {lease_ms} ms without asking Redis, and "
        "revocations are answered that much later. Workers and scripts must agree on it."
    )


async def _inspect(server: RedisLimiterBase) -> Finding:
    try:
        info = await server.server_info()
    except LimiterUnavailable as error:
        if not is_rejection(error):
            raise
        # The service needs neither INFO nor PING, so an ACL need not allow them.
        says = f"The Redis server at {server.where} accepts writes, but does not say what it is ({error})."
        return Finding("redis", "warning", says)
    says = f"{info.version} at {server.where} accepts writes and responds in {info.answer_ms:.1f} ms."
    return Finding("redis", "ok", says)


def _judge_clock(ahead_s: float) -> Finding:
    if abs(ahead_s) <= MAX_CLOCK_DIFFERENCE_S:
        return Finding("clock", "ok", f"PostgreSQL and this machine agree within {MAX_CLOCK_DIFFERENCE_S:.0f} s.")
    return Finding("clock", "warning", f"The clocks of PostgreSQL and of this host differ by {abs(ahead_s):.0f} s.")


async def check_hashing(settings: KeyAuthSettings) -> AsyncIterator[Finding]:
    """Measure one Argon2 hash: each worker computes one for each key that it meets."""
    hasher = Hasher(settings, build_metrics(settings.key_prefix, False))
    hasher.start()
    try:
        began = time.perf_counter()
        await hasher.hash("no secret", "nobody")
        took_ms = (time.perf_counter() - began) * 1000
    except KeyAuthError:
        yield Finding("hashing", "error", "Argon2 cannot run, for example because memory is short.")
        return
    finally:
        hasher.close()
    level: Level = "warning" if took_ms > SLOW_HASH_MS else "ok"
    says = f"One Argon2 hash takes {took_ms:.0f} ms and {settings.argon2_memory_kib} KiB."
    if settings.redis_url is not None and not settings.ticket_key:
        says += f" After a restart, a worker needs {took_ms:.0f} s of CPU for 1,000 keys. With ticket_key, under 2 s."
    yield Finding("hashing", level, says)


CHECKS: tuple[Check, ...] = (check_database, check_redis, check_hashing)
