"""What ``keyauth check`` looks at, a function each. None of them changes anything that lasts."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from sqlalchemy import text

from fastapi_keyauth.cli.db import describe
from fastapi_keyauth.errors import KeyAuthError, LimiterUnavailable
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.limiter import FailoverLimiter
from fastapi_keyauth.limiter.redis.base import RedisLimiterBase
from fastapi_keyauth.limiter.redis.scripts import is_refusal
from fastapi_keyauth.limiter.redis.server_info import MAX_CLOCK_DIFFERENCE_S
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.settings.urls import masked_url
from fastapi_keyauth.store import Database, schema
from fastapi_keyauth.store.upgrade import has_been_made

SLOW_HASH_MS = 500.0
_PACKAGES = ("fastapi-keyauth", "fastapi", "sqlalchemy", "redis", "argon2-cffi", "alembic")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``error``: the application would not start, or not work."""

    name: str
    level: Literal["ok", "warning", "error"]
    says: str


Check = Callable[[KeyAuth], AsyncIterator[Finding]]


def check_settings() -> tuple[KeyAuthSettings | None, list[Finding]]:
    """The settings, unless one cannot be right, and what is dangerous about them."""
    try:
        settings = KeyAuthSettings()
    except KeyAuthError as error:
        return None, [Finding("settings", "error", str(error))]
    warnings = [Finding("settings", "warning", warning) for warning in settings.dangers()]
    return settings, warnings or [Finding("settings", "ok", "Every setting can be right and none is dangerous.")]


def check_versions() -> Iterator[Finding]:
    """What is installed."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("versions", "ok", ", ".join([f"Python {python}", *(f"{name} {version(name)}" for name in _PACKAGES)]))


async def check_database(auth: KeyAuth) -> AsyncIterator[Finding]:
    """Whether it answers, how fast, of which revision its tables are, and its clock."""
    database = Database(auth.settings.database_url)
    where = masked_url(auth.settings.database_url)
    if not has_been_made(auth.settings.database_url):
        says = f"There is no {where} yet: it is made at the first start. Is this the application's folder?"
        yield Finding("database", "warning", says)
        return
    ask = "SELECT sqlite_version(), 0" if database.is_sqlite else "SHOW server_version"
    try:
        async with database.opening(), database.read() as connection:
            product = (await connection.execute(text(ask))).scalar_one()
            began = time.time()
            await connection.execute(text("SELECT 1"))
            answer_ms = (time.time() - began) * 1000
            name = "SQLite" if database.is_sqlite else "PostgreSQL"
            yield Finding("database", "ok", f"{name} {product} at {where} answers in {answer_ms:.1f} ms.")
            revision = await connection.run_sync(schema.find_revision)
            yield _judge_tables(revision)
            if revision is not None:
                await connection.execute(text("SELECT 1 FROM keyauth_keys WHERE id = ''"))  # the role may not be let
            if not database.is_sqlite:
                if (await connection.execute(text("SHOW transaction_read_only"))).scalar_one() == "on":
                    says = f"{where} takes no writes: it is a replica, or default_transaction_read_only is on."
                    yield Finding("database", "error", says)
                now = (await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one()
                yield _judge_clock(float(now) - time.time())
    except KeyAuthError as error:
        yield Finding("database", "error", str(error))
    finally:
        await database.close()


def _judge_tables(revision: str | None) -> Finding:
    says = {
        "empty": "There are no tables yet; they are made at the first start.",
        "newest": f"They are of the newest revision, {schema.NEWEST}.",
        "ahead": f"They are of revision {revision}, which a newer version of the package has made.",
        "behind": f"They are of revision {revision} and {schema.NEWEST} is wanted: run `keyauth db upgrade`.",
    }
    state = describe(revision)
    levels: dict[str, Literal["ok", "warning", "error"]] = {"ahead": "warning", "behind": "error"}
    return Finding("tables", levels.get(state, "ok"), says[state])


async def check_redis(auth: KeyAuth) -> AsyncIterator[Finding]:
    """Whether it answers and takes what the limiter writes, how fast, whether it may forget, and its clock."""
    limiter = auth._limiter
    if not isinstance(limiter, FailoverLimiter):
        yield Finding(
            "redis", "ok", "No redis_url: caps and blocks are counted in each process alone. Right for one worker."
        )
        return
    primary = limiter.primary
    try:
        await primary.start()
        finding = await _look_at(primary)
        warnings = await primary.run_checks()
    except LimiterUnavailable as error:
        says = "refuses" if is_refusal(error) else "does not answer"
        yield Finding("redis", "error", f"The Redis server at {primary.where} {says} ({error}).")
        return
    finally:
        await primary.close()
    yield finding
    for warning in warnings:
        yield Finding("redis", "warning", warning.sentence)


async def _look_at(server: RedisLimiterBase) -> Finding:
    try:
        facts = await server.facts()
    except LimiterUnavailable as error:
        if not is_refusal(error):
            raise
        # The service needs no INFO and no PING, so an ACL need not allow them.
        says = f"The Redis server at {server.where} takes writes, and may not be asked what it is ({error})."
        return Finding("redis", "warning", says)
    says = f"{facts.version} at {server.where} takes writes and answers in {facts.answer_ms:.1f} ms."
    return Finding("redis", "ok", says)


def _judge_clock(ahead_s: float) -> Finding:
    if abs(ahead_s) <= MAX_CLOCK_DIFFERENCE_S:
        return Finding("clock", "ok", f"PostgreSQL and this machine agree within {MAX_CLOCK_DIFFERENCE_S:.0f} s.")
    return Finding("clock", "warning", f"The clocks of PostgreSQL and of this host differ by {abs(ahead_s):.0f} s.")


async def check_hashing(auth: KeyAuth) -> AsyncIterator[Finding]:
    """What one Argon2 run costs here: each worker does one for each key it meets."""
    auth._hasher.start()
    try:
        began = time.perf_counter()
        await auth._hasher.hash("no secret", "nobody")
        took_ms = (time.perf_counter() - began) * 1000
    except KeyAuthError:
        yield Finding("hashing", "error", "Argon2 cannot run, for want of memory for instance.")
        return
    finally:
        auth._hasher.close()
    memory_kib = auth.settings.argon2_memory_kib
    level: Literal["ok", "warning"] = "warning" if took_ms > SLOW_HASH_MS else "ok"
    yield Finding("hashing", level, f"One Argon2 hash takes {took_ms:.0f} ms and {memory_kib} KiB.")


CHECKS: tuple[Check, ...] = (check_database, check_redis, check_hashing)
