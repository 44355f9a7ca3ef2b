"""A limiter whose questions show in traces."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Limiter

Span = Callable[..., AbstractContextManager[object]]
"""``span(name, key_id=None)``: a context manager, which gives an OpenTelemetry span if the request is traced."""


class TracedLimiter:
    """A limiter with a span around each check and each failed attempt.

    Args:
        limiter: The limiter.
        span: Opens a span.
    """

    def __init__(self, limiter: Limiter, span: Span) -> None:
        self._limiter = limiter
        self._span = span
        self.start = limiter.start
        self.close = limiter.close
        self.bump_generation = limiter.bump_generation
        self.bump_owner_generation = limiter.bump_owner_generation
        self.known_block_s = limiter.known_block_s
        self.blocks = limiter.blocks
        self.unblock = limiter.unblock
        self.run_checks = limiter.run_checks

    async def check(self, ask: LimitCheck) -> Decision:
        """See ``Limiter``."""
        with self._span("keyauth.limiter.take", ask.key_id) as span:
            decision = await self._limiter.check(ask)
            set_attribute = getattr(span, "set_attribute", None)
            if set_attribute is not None:
                set_attribute("keyauth.verdict", decision.verdict.name.lower())
            return decision

    async def record_failure(self, bucket: str) -> int | None:
        """See ``Limiter``."""
        with self._span("keyauth.limiter.fail"):
            return await self._limiter.record_failure(bucket)
