"""One cache of compiled statements for all engines of a test session.

SQLAlchemy compiles each statement once per engine, and each test has an engine of its own: that took a fifth of the
time of a short test. Other processes, such as the workers and the example, run SQLAlchemy as it is; so does
`make test THOROUGH=1`.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

CAPACITY = 2_000


def share_statements(patch: pytest.MonkeyPatch) -> None:
    """Make all engines share a cache. Two dialects are equal if their class and their server's version are equal."""
    shared: LRUCache[Any, Any] = LRUCache(CAPACITY)

    def is_like(one: DefaultDialect, other: object) -> bool:
        return type(one) is type(other) and _version_of(one) == _version_of(other)

    patch.setattr(Engine, "_compiled_cache", property(lambda _: shared, lambda _, __: None), raising=False)
    patch.setattr(DefaultDialect, "__eq__", is_like)
    patch.setattr(DefaultDialect, "__hash__", lambda dialect: hash(type(dialect)))


def _version_of(dialect: Any) -> Any:
    return getattr(dialect, "server_version_info", None)
