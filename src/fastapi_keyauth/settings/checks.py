"""Warnings about settings that are valid but risky, and the checks that need nothing but the settings.

Each is logged as a warning at startup, or at the first request that shows the risk.
"""

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastapi_keyauth.domain.ip_addresses import parse_network
from fastapi_keyauth.settings.settings import KeyAuthSettings

logger = logging.getLogger("fastapi_keyauth")

# The least work among the equivalent choices of OWASP's Password Storage Cheat Sheet: 7 MiB, t=5, p=1.
WEAKEST_MEMORY_KIB = 7168
WEAKEST_TIME_COST = 5

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

    def warn(self) -> None:
        """Log the warning."""
        logger.warning("%s", self.sentence, extra={"keyauth_event": "danger", "reason": self.code})


def run_checks(settings: KeyAuthSettings) -> Iterator[CheckWarning]:
    """Yield a warning for each risk that the settings, the environment or the command line shows."""
    if any(parse_network(text).prefixlen == 0 for text in settings.trusted_proxies):
        yield CheckWarning.of("trusts_every_proxy")
    work = settings.argon2_memory_kib * settings.argon2_time_cost
    if settings.argon2_memory_kib < WEAKEST_MEMORY_KIB or work < WEAKEST_MEMORY_KIB * WEAKEST_TIME_COST:
        yield CheckWarning.of("weak_argon2")
    known = type(settings).model_fields
    names = ", ".join(sorted(unknown_variables(known, {*os.environ, *settings.in_dotenv})))
    if names:
        yield CheckWarning.of("unknown_setting", names=names)
    if settings.redis_url is None and _announced_workers() > 1:
        yield CheckWarning.of("workers_without_redis")
    if "*" in settings.allowed_origins:
        yield CheckWarning.of("any_origin")
    if _server_trusts_everyone():
        yield CheckWarning.of("server_trusts_everyone")


def unknown_variables(known: Iterable[str], variables: Iterable[str]) -> set[str]:
    """Return the variables that have the prefix of settings and name none of them, most often misspelled ones."""
    names = {f"KEYAUTH_{name.upper()}" for name in known} | {"KEYAUTH_APP"}  # of the command line
    return {name for name in map(str.upper, variables) if name.startswith("KEYAUTH_")} - names


def _command_line() -> str:
    # gunicorn also reads options from this variable.
    return " ".join([os.environ.get("GUNICORN_CMD_ARGS", ""), *sys.argv[1:]])


def _announced_workers() -> int:
    """Return the number of workers on the command line or in ``WEB_CONCURRENCY``, as uvicorn and gunicorn read it."""
    matches = re.findall(r"(?:^| )(?:--workers[ =]|-w[ =]?)(\d{1,4})(?= |$)", _command_line())
    text = matches[-1] if matches else os.environ.get("WEB_CONCURRENCY", "")
    return int(text) if text.isascii() and text.isdigit() else 1


def _server_trusts_everyone() -> bool:
    """Return whether uvicorn, or gunicorn around it, trusts ``X-Forwarded-For`` from every address.

    A Unix socket is not at risk: only the proxy connects to it, and the address is known from its header alone.
    """
    line = f" {_command_line()} "
    if " --no-proxy-headers " in line or re.search(r" (?:--uds|--fd)[ =]| (?:-b|--bind)[ =]?unix:", line):
        return False
    told = re.findall(r" --forwarded-allow-ips[ =](\S*)", line)
    return (told[-1] if told else os.environ.get("FORWARDED_ALLOW_IPS", "")) == "*"
