"""A limiter with OpenTelemetry spans."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Limiter

Span = Callable[..., AbstractContextManager[object]]
"""``span(name, key_id=None)`` returns a context manager. It yields an OpenTelemetry span if the request is traced."""


class TracedLimiter:
    """A limiter with a span around each check that may take I/O, and each failed attempt.

    Args:
        limiter: The limiter.
        span: Opens a span.
    """

    def __init__(self, limiter: Limiter, span: Span) -> None:
        self._limiter = limiter
        self.counts_usage = limiter.counts_usage
        self._span = span
        self.start = limiter.start
        self.close = limiter.close
        self.bump_generation = limiter.bump_generation
        self.bump_owner_generation = limiter.bump_owner_generation
        self.try_decide = limiter.try_decide
        self.find_allowance = limiter.find_allowance
        self.find_generations = limiter.find_generations
        self.known_block_s = limiter.known_block_s
        self.read_usage = limiter.read_usage
        self.blocks = limiter.blocks
        self.read_ticket = limiter.read_ticket
        self.write_ticket = limiter.write_ticket
        self.unblock = limiter.unblock
        self.run_checks = limiter.run_checks

    async def check(self, question: LimitCheck) -> Decision:
        """Check as the limiter does, in a span with the verdict."""
        with self._span("keyauth.limiter.take", question.key_id) as span:
            decision = await self._limiter.check(question)
            set_attribute = getattr(span, "set_attribute", None)
            if set_attribute is not None:
                set_attribute("keyauth.verdict", decision.verdict.name.lower())
            return decision

    async def record_failure(self, bucket: str) -> int | None:
        """Count a failed attempt as the limiter does, in a span."""
        with self._span("keyauth.limiter.fail"):
            return await self._limiter.record_failure(bucket)
