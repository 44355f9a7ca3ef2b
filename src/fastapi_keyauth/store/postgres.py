"""Connections to PostgreSQL: arguments of asyncpg from the parameters of a URL, and detection of a pooler."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.engine import URL

from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.settings.database_urls import SERVER_PARAMETERS, TLS_PARAMETERS

CONNECT_TIMEOUT_S = 2.0
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SYSTEM = "system"
"""Value of ``sslrootcert``: the certificate authorities that the operating system trusts."""

POOLED: Mapping[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": str,
}
"""Arguments for a pooler that hands each transaction to another connection (PgBouncer in transaction mode).

Prepared statements belong to a connection, so none is kept: each is unnamed, and asyncpg sends it again together with
its parameters. Unique names would work as well, but the server would keep every one of them until the pooler closes
its connection. https://docs.sqlalchemy.org/en/20/dialects/postgresql.html#prepared-statement-name-with-pgbouncer
"""


def split_url(url: URL) -> tuple[URL, dict[str, Any]]:
    """Separate a URL into what SQLAlchemy reads, and the arguments of ``asyncpg.connect``.

    Raises:
        SetupError: If a file that the URL names cannot be read.
    """
    given = {name: value for name, value in url.query.items() if isinstance(value, str)}
    plain = url.set(query={name: value for name, value in url.query.items() if name == "host"})
    arguments: dict[str, Any] = {"timeout": float(given.get("connect_timeout", 0)) or CONNECT_TIMEOUT_S}
    if server_settings := _server_settings(given):
        arguments["server_settings"] = server_settings
    if "target_session_attrs" in given:
        arguments["target_session_attrs"] = given["target_session_attrs"]
    return plain, arguments | _tls_arguments(given)


def _server_settings(given: Mapping[str, str]) -> dict[str, str]:
    settings = {name: given[name] for name in SERVER_PARAMETERS if name in given}
    if "schema" in given:
        settings["search_path"] = given["schema"]
    return settings


def _tls_arguments(given: Mapping[str, str]) -> dict[str, Any]:
    tls = {name: given[name] for name in TLS_PARAMETERS if name in given}
    for name in _FILES:
        if name in tls and not (name == "sslrootcert" and tls[name] == _SYSTEM):
            _check_file(name, tls[name])
    if tls.get("sslrootcert") != _SYSTEM:
        # A connection string of these alone: asyncpg reads them there under the names of libpq.
        return {"dsn": f"postgresql://?{urlencode(tls)}"} if tls else {}
    if tls.get("sslmode", "verify-full") != "verify-full":
        raise SetupError("The database URL has sslrootcert=system, which requires sslmode=verify-full.")
    context = ssl.create_default_context()
    if "sslcert" in tls:
        context.load_cert_chain(tls["sslcert"], tls.get("sslkey"), lambda: tls.get("sslpassword", ""))
    return {"ssl": context}


def _check_file(name: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SetupError(f"The file that {name} names in the database URL cannot be read: {path} ({reason}).") from None


async def is_pooled(url: URL) -> bool:
    """Return whether a pooler between this process and PostgreSQL shares its connections among clients.

    A pooler reports an invented process id to each client. The parameter ``pgbouncer`` overrides the result.
    """
    if "pgbouncer" in url.query:
        return url.query["pgbouncer"] in ("true", "1")
    import asyncpg  # noqa: PLC0415  # an extra, which users of SQLite may not have

    plain, arguments = split_url(url)
    connection = await asyncpg.connect(**{**_connect_arguments(plain), **arguments, "statement_cache_size": 0})
    try:
        return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())
    finally:
        connection.terminate()


def _connect_arguments(plain: URL) -> dict[str, Any]:
    _, arguments = plain.get_dialect()().create_connect_args(plain)
    return dict(arguments)
