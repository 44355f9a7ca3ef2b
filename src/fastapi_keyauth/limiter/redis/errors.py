"""Errors of redis-py, of the system and of the server, and their meaning."""

import re

from redis.asyncio.sentinel import MasterNotFoundError

from fastapi_keyauth.errors import LimiterUnavailable

_REJECTIONS = re.compile(
    "AuthenticationError|WRONGPASS|NOAUTH|permission|unknown command|DB index|cluster support disabled"
    "|not allowed in cluster mode|MOVED|CROSSSLOT|no Sentinel knows|CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER"
    "|RECORD_LAYER_FAILURE|ALERT_(?:[A-Z]*_?CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE|ACCESS_DENIED)|InvalidResponse"
    "|ProtocolError"
)
"""Messages of servers that reject the connection. redis-py has classes for some of these errors, hiredis has none."""


def unavailable(error: BaseException) -> LimiterUnavailable:
    """Return the error for the caller, with the type and the first line of the original one.

    Args:
        error: The original error.
    """
    # The server's own words ("NOPERM ...") help readers of the log, and do not repeat our arguments.
    said = str(error).splitlines()[:1]
    if isinstance(error, MasterNotFoundError):
        # The rest shows clients, in old versions with their passwords.
        sentence, _, problems = said[0].partition(" : ")
        said = [f"{sentence} (AuthenticationError)" if "AuthenticationError" in problems else sentence]
    return LimiterUnavailable(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)


def is_rejection(error: BaseException) -> bool:
    """Return whether a server responds but rejects the connection, which does not change by itself.

    Examples: a wrong password, a missing permission, a database that does not exist, a cluster behind the URL of a
    single server, a certificate that is not trusted, another protocol.
    """
    return _REJECTIONS.search(str(error)) is not None
