"""`make demo`: its output works when it is pasted into a shell, and a failed start is explained."""

from __future__ import annotations

import html
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.example.demo import ROOT, Demo, command, environment
from tests.helpers.processes import stay_within_the_hour
from tests.helpers.session import Servers

StartDemo = Callable[..., Demo]
BASH = shutil.which("bash")
HANG_S = 150.0
"""A guard against hanging, long enough for a busy machine."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Yield the demo as `make demo` starts it, for tests that do not change its data."""
    running = Demo(tmp_path_factory.mktemp("demo"))
    yield running
    running.close()


def run(command_line: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command_line, capture_output=True, text=True, check=False, timeout=HANG_S, **options)


def statuses(output: str) -> list[int]:
    return [int(status) for status in re.findall(r"(?m)^HTTP/1\.1 (\d+)", output)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_printed_lines_show_what_they_promise(demo: Demo) -> None:
    stay_within_the_hour()
    shell = run([str(BASH), "-eu"], input=demo.script)
    assert shell.returncode == 0, shell.stderr
    tiny, rest = [200, 200, 200, 429], [200, 101, 204, 401, 200, 200, 200, 200, 200]
    assert statuses(shell.stdout) == [200, 401, 403, 201, *tiny, *rest]
    codes = ["missing_api_key", "session_required", "rate_limit_exceeded", "revoked_api_key"]
    found = re.findall(r'"code": ?"(\w+)"', shell.stdout)  # twice in each body, for SDKs
    assert list(dict.fromkeys(found)) == codes
    assert re.findall(r'"delta": {"content": "(\w+) "}', shell.stdout) == ["Polly", "wants", "a", "cracker"]
    assert re.search(r"Hello, local-dev[\s\S]*revoked_api_key", shell.stdout)
    assert '{"unit":"tokens","units":{"tokens":8}' in shell.stdout
    assert '"role":"viewer"' in shell.stdout
    assert '"finding":"never_expires"' in shell.stdout
    assert '"limit":5000000' in shell.stdout


def test_comments_of_the_printed_lines_are_harmless_in_a_shell(demo: Demo) -> None:
    comments = [line for line in demo.script.splitlines() if line.startswith("#")]
    assert comments
    assert not re.search(r"[^\w ,.:#]", "".join(comments))


def test_printed_key_page_is_there_and_takes_the_printed_login(demo: Demo) -> None:
    with httpx.Client(base_url=demo.url) as client:
        page = client.get(demo.page)
        assert page.headers["content-type"].startswith("text/html")
        known = json.loads(html.unescape(re.findall(r'name="keyauth-page" content="([^"]*)"', page.text)[0]))
        log_in, data = (page.url.join(known[name]) for name in ("log_in_path", "data_path"))
        session = client.post(log_in, json={"email": demo.email, "password": demo.password}).json()["session_token"]
        options = client.get(data.join("options"), headers={"Authorization": f"Bearer {session}"}).json()
        assert "completions:write" in [scope["name"] for scope in options["scopes"]]


def test_log_gives_reasons_and_contains_no_token(demo: Demo) -> None:
    httpx.get(f"{demo.url}/v1/models", headers={"api-key": demo.key + "x"})
    httpx.get(f"{demo.url}/v1/models", headers={"api-key": demo.key})
    log = demo.log().partition("Stop the server")[2]
    assert "refused: malformed_api_key" in log
    assert demo.key not in log


def test_ctrl_c_is_not_an_error_and_another_start_replaces_password_and_keys(start_demo: StartDemo) -> None:
    before = start_demo()
    assert before.press_ctrl_c() == 0
    assert "Application shutdown complete." in before.log()
    assert "Traceback" not in before.log()
    after = start_demo()
    with httpx.Client(base_url=after.url) as client:
        old, new = (client.get("/v1/models", headers={"api-key": demo.key}) for demo in (before, after))
        assert (old.json()["code"], new.status_code) == ("revoked_api_key", 200)
        logins = [
            client.post("/login", json={"email": demo.email, "password": demo.password}).status_code
            for demo in (before, after)
        ]
        assert logins == [401, 200]


def test_forged_address_does_not_help(start_demo: StartDemo) -> None:
    demo = start_demo(KEYAUTH_BLOCK_AFTER_FAILURES="2")
    forged = [
        httpx.get(f"{demo.url}/v1/models", headers={"api-key": "guess", "X-Forwarded-For": f"203.0.113.{n}"})
        for n in range(3)
    ]
    assert [answer.status_code for answer in forged] == [401, 401, 429]


def test_websocket_requires_a_key(demo: Demo) -> None:
    address = f"ws{demo.url.removeprefix('http')}/v1/echo"
    with connect(address, additional_headers={"api-key": demo.key}, proxy=None) as websocket:
        assert websocket.recv(timeout=10) == "Hello, created by make demo"
        websocket.send("hello")
        assert websocket.recv(timeout=10) == "hello"
    with pytest.raises(InvalidStatus) as refused, connect(address, proxy=None):
        pass
    assert refused.value.response.status_code == 401
    assert b"missing_api_key" in (refused.value.response.body or b"")


WHY_NOT: list[tuple[str, dict[str, str], str]] = [
    ("--workers 4", {}, "Several workers can share counters only through Redis: set KEYAUTH_REDIS_URL."),
    ("--workers 0", {}, "--workers must be at least 1."),
    ("", {"KEYAUTH_BLOCK_FOR_S": "-1"}, "Setting block_for_s (KEYAUTH_BLOCK_FOR_S) is invalid: "),
    ("", {"KEYAUTH_DATABASE_URL": "sqlite:////no/such/folder/x.db"}, "The database at sqlite"),
    ("", {"KEYAUTH_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x"}, "The database at postgresql"),
    ("--workers 4", {"KEYAUTH_REDIS_URL": "redis://:hush@127.0.0.1:{port}"}, "The Redis server at redis://***@"),
]
"""Options, environment, the beginning of the sentence. ``{port}`` is that of a Redis that wants another password."""


def fill_in(env: dict[str, str], servers: Servers) -> dict[str, str]:
    """Return the environment with the port of Redis filled in."""
    return {name: value.replace("{port}", str(urlsplit(servers.url("valkey")).port)) for name, value in env.items()}


def assert_says_why(code: object, output: str, errors: str, sentence: str) -> None:
    """Check that the output is only that sentence, without a password."""
    assert (code, output) == (2, "")
    assert errors.startswith(sentence)
    assert errors.endswith(".\n")
    assert errors.count("\n") == 1
    assert "hush" not in errors


@pytest.mark.parametrize(("options", "env", "sentence"), WHY_NOT)
def test_a_failed_start_is_explained_in_one_sentence(
    start_here: Callable[..., object],
    capfd: pytest.CaptureFixture[str],
    servers: Servers,
    options: str,
    env: dict[str, str],
    sentence: str,
) -> None:
    code = start_here(*f"--port 0 {options}".split(), **fill_in(env, servers))
    output, errors = capfd.readouterr()
    assert_says_why(code, output, errors, sentence)


@pytest.mark.parametrize(
    ("options", "env", "sentence"),
    [WHY_NOT[-1], ("--port 65536", {}, "Port 65536 is not available: choose another one with --port.")],
)
def test_a_process_that_cannot_start_prints_only_that_sentence(
    tmp_path: Path, servers: Servers, options: str, env: dict[str, str], sentence: str
) -> None:
    env = environment(**fill_in(env, servers))
    demo = run(command(*f"--port 0 {options}".split()), cwd=tmp_path, env=env)
    assert_says_why(demo.returncode, demo.stdout, demo.stderr, sentence)


def test_a_port_in_use_is_reported_before_anything_is_created(
    start_here: Callable[..., object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code = start_here("--port", str(port))
    assert (code, capfd.readouterr().err) == (2, f"Port {port} is not available: choose another one with --port.\n")
    assert list(tmp_path.iterdir()) == []


def test_demo_needs_nothing_but_its_own_dependencies() -> None:
    """What `make demo` installs has no httpx, asyncpg or the like."""
    missing = ("asyncpg", "email_validator", "httpx", "jwt", "pytest")
    hide = "".join(f"sys.modules[{name!r}] = None; " for name in missing)
    code = f"import sys; {hide}import example_app.demo, example_app.__main__"
    imported = run([sys.executable, "-c", code], cwd=ROOT, env=environment())
    assert imported.returncode == 0, imported.stderr
