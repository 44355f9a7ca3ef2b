"""The response headers that state limits, in the form of the IETF draft or in the older one.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from collections.abc import Sequence
from typing import Literal

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.concurrency.bounded_dict import BoundedDict
from fastapi_keyauth.domain.limit_sets import LimitSet
from fastapi_keyauth.domain.units import REQUESTS
from fastapi_keyauth.domain.windows import window_at
from fastapi_keyauth.http.cors import RawHeaders

RateLimitHeaders = Literal["ietf", "legacy", "both", "none"]
MAX_TEMPLATES = 1024
"""Maximum number of sets of limits whose constant parts of headers are cached."""


class RateLimitHeaderWriter:
    """Adds rate-limit headers to responses.

    Args:
        mode: The setting ``rate_limit_headers``.
    """

    def __init__(self, mode: RateLimitHeaders) -> None:
        self._is_ietf = mode in ("ietf", "both")
        self._is_legacy = mode in ("legacy", "both")
        self._templates: BoundedDict[LimitSet, _Template] = BoundedDict(MAX_TEMPLATES)

    def add(self, headers: RawHeaders, context: AuthContext) -> None:
        """Add the headers of a request that was charged, or refused by a limit, to a response."""
        key, states = context.key, context.states
        if not states or key is None:
            return
        limits = key.limits
        if self._is_ietf:
            template = self._templates.get(limits) or self._add_template(limits)
            numbers = (states[0], states[1]) if limits.only else _remaining_and_reset(states, template.length)
            headers += (template.policy or template.policy_of_month(states), (b"ratelimit", template.state % numbers))
        if self._is_legacy:
            tightest = limits.find_tightest(states)
            if tightest is not None:
                headers.append((b"x-ratelimit-limit", b"%d" % limits.all[tightest].limit))
                headers.append((b"x-ratelimit-remaining", b"%d" % states[3 * tightest]))
                headers.append((b"x-ratelimit-reset", b"%d" % states[3 * tightest + 2]))

    def _add_template(self, limits: LimitSet) -> "_Template":
        template = self._templates[limits] = _Template(limits)
        return template


class _Template:
    """What is the same in the headers of all requests with the same limits.

    Attributes:
        policy: The header ``RateLimit-Policy``. None: it depends on the month.
        state: The value of ``RateLimit``, with places for two numbers of each limit.
        length: How many states the limits have.
    """

    __slots__ = ("_limits", "_month_end_at", "_month_end_s", "_policy_of_month", "length", "policy", "state")

    def __init__(self, limits: LimitSet) -> None:
        self._limits = limits
        self.state = b", ".join(b'"%b";r=%%d;t=%%d' % name.encode() for name in limits.names)
        self.length = 3 * len(limits.all)
        months = [position for position, limit in enumerate(limits.all) if not limit.window_ms]
        self.policy = None if months else _policy(limits, ())
        self._month_end_at = 3 * months[0] + 2 if months else 0
        self._month_end_s = 0
        self._policy_of_month: tuple[bytes, bytes] = (b"", b"")

    def policy_of_month(self, states: Sequence[int]) -> tuple[bytes, bytes]:
        """Return the header ``RateLimit-Policy``. It changes if a month begins, which has another length."""
        month_end_s = states[self._month_end_at]
        if month_end_s != self._month_end_s:
            self._policy_of_month, self._month_end_s = _policy(self._limits, states), month_end_s
        return self._policy_of_month


def _policy(limits: LimitSet, states: Sequence[int]) -> tuple[bytes, bytes]:
    items = []
    for position, (name, limit) in enumerate(zip(limits.names, limits.all, strict=True)):
        window_ms = limit.window_ms or window_at(0, states[3 * position + 2] * 1000 - 1).length_ms
        unit = "" if limit.unit == REQUESTS else f';qu="{limit.unit}"'
        items.append(f'"{name}";q={limit.limit}{unit};w={window_ms // 1000}')
    return b"ratelimit-policy", ", ".join(items).encode()


def _remaining_and_reset(states: Sequence[int], length: int) -> tuple[int, ...]:
    """Return two of the three numbers of each limit."""
    numbers = list(states[:length])
    del numbers[2::3]
    return tuple(numbers)
