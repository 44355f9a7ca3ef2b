"""Warnings about settings that are valid but risky, each with a code by which it can be silenced.

Each is logged at startup, or at the first request that shows the risk.
"""

import logging
from collections.abc import Collection
from typing import NamedTuple

logger = logging.getLogger("fastapi_keyauth")

SENTENCES = {
    "trusts_every_proxy": "trusted_proxies trusts every address, so any client can write its own address.",
    "weak_argon2": "The Argon2 settings are below OWASP's minimum (19 MiB, t=2, p=1).",
    "unknown_setting": "Unknown settings have no effect: {names}.",
    "workers_without_redis": (
        "Several workers without redis_url: each counts alone, so rate limits and blocks are multiplied."
    ),
    "any_origin": "allowed_origins is '*', so any web page that has a key may call this API with it.",
    "server_trusts_everyone": (
        "The server trusts X-Forwarded-For from every address (--forwarded-allow-ips or FORWARDED_ALLOW_IPS is '*'), "
        "so any client can write its own address: list the proxies there and in trusted_proxies."
    ),
    "peer_replaced": (
        "The server replaces the peer's address with the one in X-Forwarded-For, but trusted_proxies is empty: list "
        "the proxies in trusted_proxies and in --forwarded-allow-ips, or run it with --no-proxy-headers."
    ),
    "https_ignored": (
        "A proxy says that clients use https (X-Forwarded-Proto), but the server ignores it, so redirects lead to "
        "http:// and clients send their keys unencrypted: list the proxies in --forwarded-allow-ips."
    ),
    "unknown_scope": (
        "Routes require the scope {scope!r}, which the setting scopes does not list, so no key can have it: {paths}."
    ),
    "redis_evicts": (
        "Redis evicts counters and blocks when its memory is full (maxmemory-policy {policy}): a rate limit would "
        "count from zero again and a block would end early; set noeviction."
    ),
    "clocks_differ": (
        "The clocks of Redis and of this host differ by {seconds} s. Rate limits and blocks use Redis's clock, and "
        "expiry uses this host's: keep NTP running on both."
    ),
}
"""Sentences by code, with placeholders."""


class CheckWarning(NamedTuple):
    """A setting or a server that is valid but risky.

    Attributes:
        code: Code for programs; the ``reason`` of its log line.
        sentence: Sentence for people.
    """

    code: str
    sentence: str

    @classmethod
    def of(cls, code: str, **facts: object) -> "CheckWarning":
        """Return the warning with this code and the given facts in its sentence."""
        return cls(code, SENTENCES[code].format(**facts))

    def warn(self, silenced: Collection[str]) -> None:
        """Log the warning.

        Args:
            silenced: The setting ``silenced_checks``.
        """
        if self.code in silenced:
            return
        logger.warning("%s", self.sentence, extra={"keyauth_event": "danger", "reason": self.code})
