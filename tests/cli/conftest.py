"""Fixtures of the command line's tests, each of which runs in its own folder."""

from pathlib import Path

import pytest

from tests.helpers.session import Servers

ENVIRONMENT = {
    "KEYAUTH_ARGON2_TIME_COST": "1",
    "KEYAUTH_ARGON2_MEMORY_KIB": "8",
    "KEYAUTH_BLOCK_AFTER_FAILURES": "1",
    "KEYAUTH_REDIS_TIMEOUT_S": "10",  # a busy machine is no outage
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty folder with a new database, cheap hashing and a long timeout for Redis."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def redis_url(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> str:
    url = servers.fresh_redis_url("valkey")
    monkeypatch.setenv("KEYAUTH_REDIS_URL", url)
    return url
