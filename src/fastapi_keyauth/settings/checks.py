"""What is allowed and dangerous: the sentences, and those that the settings alone give rise to.

Each is logged as a warning when the application starts, or when the first requests show it.
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
    "unknown_setting": "There is no such setting, so it does nothing: {names}.",
    "workers_without_redis": "Several workers without redis_url: each counts alone, so caps and blocks are multiplied.",
    "any_origin": "allowed_origins is '*', so any web page may call this API with a key that it has.",
    "server_trusts_everyone": (
        "The server is told to believe X-Forwarded-For from everybody (--forwarded-allow-ips or FORWARDED_ALLOW_IPS is "
        "'*'), so any client can write its own address: list the proxies there and in trusted_proxies."
    ),
    "peer_replaced": (
        "The server puts what X-Forwarded-For says in the place of the peer's address, though trusted_proxies is "
        "empty: list the proxies in trusted_proxies and in --forwarded-allow-ips, or run it with --no-proxy-headers."
    ),
    "https_ignored": (
        "A proxy says that clients use https (X-Forwarded-Proto), but the server ignores it, so redirects lead to "
        "http:// and clients send their keys unencrypted: list the proxies in --forwarded-allow-ips."
    ),
    "unknown_scope": (
        "Routes want the scope {scope!r}, which the setting scopes does not have, so no key can be given it: {paths}."
    ),
    "redis_evicts": (
        "Redis evicts what it was told to keep when its memory is full (maxmemory-policy {policy}): a key's hour would "
        "start anew and a block would end; set noeviction."
    ),
    "clocks_differ": (
        "The clocks of Redis and of this host differ by {seconds} s: hours and blocks go by the one, expiry by the "
        "other; keep NTP running on both."
    ),
}
"""Code to sentence, with what is filled in."""


class CheckWarning(NamedTuple):
    """Something that is allowed and dangerous.

    Attributes:
        code: for programs; the ``reason`` of its log line.
        sentence: for people.
    """

    code: str
    sentence: str

    @classmethod
    def of(cls, code: str, **facts: object) -> "CheckWarning":
        """The warning with this code, its sentence filled in."""
        return cls(code, SENTENCES[code].format(**facts))

    def warn(self) -> None:
        """Say it in the log."""
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
    """Variables that look like settings and are none: misspelt ones."""
    names = {f"KEYAUTH_{name.upper()}" for name in known} | {"KEYAUTH_APP"}  # of the command line
    return {name for name in map(str.upper, variables) if name.startswith("KEYAUTH_")} - names


def _command_line() -> str:
    # gunicorn reads options from this variable, too.
    return " ".join([os.environ.get("GUNICORN_CMD_ARGS", ""), *sys.argv[1:]])


def _announced_workers() -> int:
    """How many workers the command line or ``WEB_CONCURRENCY`` announces, as uvicorn and gunicorn read them."""
    matches = re.findall(r"(?:^| )(?:--workers[ =]|-w[ =]?)(\d{1,4})(?= |$)", _command_line())
    text = matches[-1] if matches else os.environ.get("WEB_CONCURRENCY", "")
    return int(text) if text.isascii() and text.isdigit() else 1


def _server_trusts_everyone() -> bool:
    """Whether uvicorn, or gunicorn in its place, is told to believe anybody's ``X-Forwarded-For``.

    On a Unix socket there is nobody else to believe, and no address without it.
    """
    line = f" {_command_line()} "
    if " --no-proxy-headers " in line or re.search(r" (?:--uds|--fd)[ =]| (?:-b|--bind)[ =]?unix:", line):
        return False
    told = re.findall(r" --forwarded-allow-ips[ =](\S*)", line)
    return (told[-1] if told else os.environ.get("FORWARDED_ALLOW_IPS", "")) == "*"
