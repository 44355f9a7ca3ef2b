"""The forms of ``database_url``: a file of SQLite, or one or more hosts of PostgreSQL with the parameters of libpq.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING has the parameters. asyncpg implements many
of them. Others are rejected by name, unless their value means what asyncpg does anyway.
"""

import re
from collections.abc import Callable, Mapping

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from fastapi_keyauth.settings.urls import MaskedUrl

TLS_PARAMETERS = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
"""Parameters that asyncpg reads from a connection string under the names of libpq."""
SERVER_PARAMETERS = ("application_name", "options")
"""Parameters that the server itself reads when a connection begins."""

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSION_ATTRIBUTES = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\],?#]+)(?::(\d{1,5}))?")
_NUMBER = re.compile(r"[0-9]{1,4}")
_FLAG = ("true", "false", "1", "0")
_FORM = "must be a database URL such as postgresql+asyncpg://user@host/name"

_NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
    "client_encoding": ("utf8", "UTF8", "utf-8", "UTF-8", "auto"),
    "sslsni": ("1",),
    "sslcompression": ("0",),
    "load_balance_hosts": ("disable",),
    "prepared_statement_cache_size": ("0",),
    "statement_cache_size": ("0",),
}
"""Parameters that asyncpg does not have, or that have no effect, with the values that it satisfies anyway."""


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


_CHECKS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "sslmode": (_one_of(*_SSL_MODES), f"one of {', '.join(_SSL_MODES)}"),
    "target_session_attrs": (_one_of(*_SESSION_ATTRIBUTES), f"one of {', '.join(_SESSION_ATTRIBUTES)}"),
    "connect_timeout": (lambda value: bool(_NUMBER.fullmatch(value)), "a whole number of seconds up to 9999"),
    "pool_size": (lambda value: bool(_NUMBER.fullmatch(value)) and 1 <= int(value) <= 1000, "from 1 to 1000"),
    "pgbouncer": (_one_of(*_FLAG), "true or false"),
    "schema": (lambda value: bool(_IDENTIFIER.fullmatch(value)), "the name of one schema"),
}
_ALIASES = {"ssl": "sslmode", "fallback_application_name": "application_name", "connection_limit": "pool_size"}
"""Other names of parameters: those of asyncpg, of libpq, and of Prisma, whose URLs hosting providers print."""
_KNOWN = frozenset((*TLS_PARAMETERS, *SERVER_PARAMETERS, *_CHECKS, "host"))


def check_database_url(text: str) -> MaskedUrl:
    """Return the URL in the form that SQLAlchemy's asynchronous drivers take.

    Raises:
        ValueError: If it names another kind of database, is malformed, or has a parameter that cannot take effect. The
            message names the parameter and never contains the value.
    """
    scheme = str.__str__(text).partition("://")[0]
    if scheme in ("sqlite", "sqlite+aiosqlite"):
        return MaskedUrl(_parse(text).set(drivername="sqlite+aiosqlite").render_as_string(hide_password=False))
    if scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
        is_url = "://" in text
        raise ValueError("must start with sqlite+aiosqlite:// or postgresql+asyncpg://" if is_url else _FORM)
    url = _parse(_name_hosts(str.__str__(text))).set(drivername="postgresql+asyncpg")
    if url.port is not None and not 0 < url.port < 65_536:
        raise ValueError(_FORM)
    if "@" in f"{url.host}{url.database}":
        raise ValueError("must have no @ / ? # in its password: write them as %40 %2F %3F %23")
    return MaskedUrl(url.set(query=_check_parameters(url)).render_as_string(hide_password=False))


def _parse(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):  # a ValueError is a port that is not a number
        raise ValueError(_FORM) from None


def _name_hosts(text: str) -> str:
    """Move several hosts to the parameter ``host``, which is where SQLAlchemy reads them."""
    scheme, _, rest = text.partition("://")
    place, mark, query = rest.partition("?")
    credentials, at, where = place.rpartition("@")
    hosts, slash, database = where.partition("/")
    if "," not in hosts:
        return text
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        raise ValueError("must name hosts as host:port,host:port (and write @ / ? # in a password as %40 %2F %3F %23)")
    named = "&".join(
        f"host={host}" if host.rpartition(":")[2].isdigit() else f"host={host}:5432" for host in hosts.split(",")
    )
    return f"{scheme}://{credentials}{at}{slash}{database}?{named}{'&' if mark else ''}{query}"


def _check_parameters(url: URL) -> dict[str, str | tuple[str, ...]]:
    checked: dict[str, str | tuple[str, ...]] = {}
    for given, value in url.query.items():
        name = _ALIASES.get(given, given)
        if name == "host":
            checked[name] = value
            continue
        last = value if isinstance(value, str) else value[-1]
        if name in _NEUTRAL and last in _NEUTRAL[name]:
            continue
        if name in _NEUTRAL:
            allowed = " or ".join(_NEUTRAL[name])
            raise ValueError(f"has {given} with a value that asyncpg does not support; leave it out, or set {allowed}")
        if name not in _KNOWN:
            raise ValueError(f"has the parameter {_shown(given)}, which asyncpg does not support; leave it out")
        is_valid, expected = _CHECKS.get(name, (bool, "not empty"))
        if not is_valid(last):
            raise ValueError(f"has an invalid {given}: it must be {expected}")
        if given == "fallback_application_name" and name in url.query:
            continue
        checked[name] = last
    if "schema" in checked and "options" in checked:
        raise ValueError("must not have both schema and options: write the schema as options=-csearch_path=name")
    return checked


def _shown(name: str) -> str:
    """Return a name for a message. A password that is not percent-encoded can look like one."""
    return name if re.fullmatch(r"[A-Za-z_]{1,40}", name) else "of an unknown name"
