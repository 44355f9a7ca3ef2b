"""Startup checks that need only the settings, the environment and the command line."""

import os
import re
import sys
from collections.abc import Iterable, Iterator

from fastapi_keyauth.domain.ip_addresses import parse_network
from fastapi_keyauth.settings.check_warnings import CheckWarning
from fastapi_keyauth.settings.settings import KeyAuthSettings

# The least work among the equivalent choices of OWASP's Password Storage Cheat Sheet: 7 MiB, t=5, p=1.
WEAKEST_MEMORY_KIB = 7168
WEAKEST_TIME_COST = 5


def run_checks(settings: KeyAuthSettings) -> list[CheckWarning]:
    """Return a warning for each risk that the settings, the environment or the command line shows, unless silenced."""
    return [warning for warning in _find_risks(settings) if warning.code not in settings.silenced_checks]


def _find_risks(settings: KeyAuthSettings) -> Iterator[CheckWarning]:
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
