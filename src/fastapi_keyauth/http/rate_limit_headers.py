"""The response headers that state a rate limit, in the IETF draft's form or the older one."""

from functools import lru_cache
from typing import Literal

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.units import HOUR_S
from fastapi_keyauth.http.cors import RawHeaders

RateLimitHeaders = Literal["ietf", "legacy", "both", "none"]


def add_rate_limit_headers(headers: RawHeaders, context: AuthContext, mode: RateLimitHeaders) -> None:
    """Add the rate-limit headers of a request that was charged, or refused by its limit, to a response."""
    decision, key = context.decision, context.key
    if decision is None or decision.remaining is None or key is None or key.hourly_limit is None:
        return
    if mode in ("ietf", "both"):
        headers.append(_policy_header(key.hourly_limit))
        headers.append((b"ratelimit", b'"hour";r=%d;t=%d' % (decision.remaining, decision.wait_s)))
    if mode in ("legacy", "both"):
        headers.append((b"x-ratelimit-limit", b"%d" % key.hourly_limit))
        headers.append((b"x-ratelimit-remaining", b"%d" % decision.remaining))
        headers.append((b"x-ratelimit-reset", b"%d" % decision.reset_at_s))


@lru_cache(maxsize=256)
def _policy_header(limit: int) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", b'"hour";q=%d;w=%d' % (limit, HOUR_S)
