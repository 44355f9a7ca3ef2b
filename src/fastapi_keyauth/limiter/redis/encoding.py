"""The form in which Redis receives limits, costs and owners."""

import base64
import hashlib
from functools import lru_cache

from fastapi_keyauth.domain.limit_sets import Cost, LimitSet


@lru_cache(maxsize=4096)
def encode_limits(limits: LimitSet, cost: Cost) -> str:
    """Return limits and costs as ``lua/take.lua`` reads them. Cached, since most keys have equal limits."""
    parts = []
    for position, (limit, units) in enumerate(zip(limits.all, limits.costs(cost), strict=True)):
        kind = "s" if limit.is_sliding else "f"
        kind = kind if position < len(limits.key) else kind.upper()
        parts.append(f"{limit.counter_id} {limit.limit} {limit.window_ms} {units} {kind};")
    return "".join(parts)


@lru_cache(maxsize=4096)
def owner_tag(owner_id: str) -> str:
    """Return the name of an owner in Redis: short, and without characters that have a meaning in key names."""
    return base64.urlsafe_b64encode(hashlib.blake2b(owner_id.encode(), digest_size=12).digest()).decode()
