"""One TLS context for all HTTP clients of a test session.

A client of `httpx` loads the certificates of all authorities when it is made, which takes 20 ms. The tests speak plain
HTTP to servers on this machine. Other processes run `httpx` as it is; so does `make test THOROUGH=1`.
"""

from __future__ import annotations

from functools import cache

import httpx
import pytest


def share_tls(patch: pytest.MonkeyPatch) -> None:
    """Make all clients with the same options share a context."""
    patch.setattr("httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context))
