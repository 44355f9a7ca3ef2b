"""Fixtures of the store's tests."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.helpers.servers import Server
from tests.helpers.session import Servers


@pytest.fixture(scope="module")
def postgres(servers: Servers) -> Iterator[Server]:
    """Yield a PostgreSQL for the tests of one module."""
    with ExitStack() as cleanup:
        server = servers.start("postgres")
        cleanup.callback(server.close)
        yield server
