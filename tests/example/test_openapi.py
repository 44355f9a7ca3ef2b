"""Random requests by schemathesis: the example responds to any request as its OpenAPI document says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.example.demo import ROOT, Demo
from tests.helpers.fuzzing import IS_LONG, TIMES

EXAMPLES = 2
"""For each operation, beside those that cover its schema systematically, which are some hundreds in all."""
EMAIL, PASSWORD = "random@example.com", "twelve or more characters"

# All checks are on but where a reason stands beside it.
CONFIG = """
hooks = "credentials.py"

[warnings]
fail-on = ["missing_auth", "missing_test_data"]

[[operations]]
include-tag = "API keys"
# A schema cannot say that an expiry lies ahead, that a cursor is one that was given out, or what metadata weighs.
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
# DELETE revokes: the row stays, for the audit.
checks.use_after_free.enabled = false

[[operations]]
include-path = [
  "/api-keys/owners/{owner_id}/suspend",
  "/api-keys/owners/{owner_id}/resume",
  "/api-keys/usage/batches",
]
# For admin, whom the example does not have: a 403 is right.
warnings = false

[[operations]]
include-path = "/api-keys/owners/{owner_id}"
include-method = ["PUT", "DELETE"]
warnings = false

[[operations]]
include-tag = "Teams"
# Random ids name no team, and one that exists has a founder who stays: 404 and 409 are right.
warnings = false

[[operations]]
include-path = "/v1/notes"
# Two functions of the example at one path: of these Starlette's 405 names only the first one's methods.
checks.allow_header_conformance.enabled = false
"""

# The key and the session belong to two users: what is done to the keys of one must not end the key of the other.
CREDENTIALS = """
import os

import httpx
import schemathesis

client = httpx.Client()  # one: each loads the certificates of all authorities


@schemathesis.auth(refresh_interval=None)
class Credentials:
    def get(self, case, context):
        if case.path != "/logout":
            return os.environ["SESSION"]
        account = {"email": os.environ["EMAIL"], "password": os.environ["PASSWORD"]}
        return client.post(os.environ["URL"] + "/login", json=account).json()["session_token"]

    def set(self, case, session, context):
        manages = case.path.startswith(("/api-keys", "/teams")) and not case.path.endswith("/current")
        if not manages and case.path != "/logout":
            case.headers["api-key"] = os.environ["API_KEY"]
        if manages or case.path in ("/logout", "/v1/notes"):
            case.headers["Authorization"] = f"Bearer {session}"
"""


@pytest.mark.fuzz
@pytest.mark.timeout(0 if IS_LONG else 240)
def test_every_operation_answers_as_its_schema_says(start_demo: Callable[..., Demo], tmp_path: Path) -> None:
    demo = start_demo(
        module="tests.example.cheap_passwords",
        PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        KEYAUTH_DEFAULT_HOURLY_LIMIT="none",
        KEYAUTH_BLOCK_AFTER_FAILURES="1000000",  # every check of refusals comes from one address
        KEYAUTH_MAX_KEYS_PER_OWNER="1000000",
        KEYAUTH_ARGON2_TIME_COST="1",
        KEYAUTH_ARGON2_MEMORY_KIB="8",
    )
    account = {"email": EMAIL, "password": PASSWORD}
    assert httpx.post(f"{demo.url}/signup", json=account).status_code == 201
    session = httpx.post(f"{demo.url}/login", json=account).json()["session_token"]
    demo_user = httpx.post(f"{demo.url}/login", json={"email": demo.email, "password": demo.password}).json()
    bearer = {"Authorization": f"Bearer {demo_user['session_token']}"}
    (team,) = httpx.get(f"{demo.url}/teams", headers=bearer).json()
    httpx.put(f"{demo.url}/teams/{team['id']}/plan", json={"plan": "pro"}, headers=bearer).raise_for_status()
    credentials = {"URL": demo.url, "API_KEY": demo.key, "SESSION": session, "EMAIL": EMAIL, "PASSWORD": PASSWORD}
    folder = tmp_path / "schemathesis"
    folder.mkdir()
    folder.joinpath("schemathesis.toml").write_text(CONFIG)
    folder.joinpath("credentials.py").write_text(CREDENTIALS)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{demo.url}/openapi.json", "--no-color"),
            *("--max-examples", str(EXAMPLES * max(1, TIMES)), "--continue-on-failure"),
            *([] if IS_LONG else ["--generation-deterministic"]),
        ],
        cwd=folder,
        env={"HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis"), **os.environ, **credentials},
        text=True,
        capture_output=True,
        check=False,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr + demo.log()[-5000:]
    found = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
    assert found, run.stdout
    assert int(found[1]) > 300
    for secret in (demo.key, session):
        assert secret not in demo.log().partition("Application startup complete.")[2]
