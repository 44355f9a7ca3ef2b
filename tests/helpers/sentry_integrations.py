"""Sentry with the integrations for the libraries of this package alone.

Each integration that is on by default imports its library if that is installed, as the SDKs of some vendors are for
other tests: that takes two seconds. `make test THOROUGH=1` has them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sentry_sdk import integrations

from tests.helpers.thorough import IS_THOROUGH

OURS = {"asyncpg", "fastapi", "httpx", "loguru", "redis", "sqlalchemy", "starlette"}


@contextmanager
def own_integrations() -> Iterator[None]:
    """Leave out the other integrations while the block runs, unless the run is thorough."""
    names: list[str] = integrations._AUTO_ENABLING_INTEGRATIONS
    before = list(names)
    if not IS_THOROUGH:
        names[:] = [name for name in before if name.split(".")[2] in OURS]  # sentry_sdk.integrations.NAME.CLASS
    try:
        yield
    finally:
        names[:] = before
