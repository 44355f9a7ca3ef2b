"""The shapes as a reader of the docs meets them: the page shows the files, and the printed commands work."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, find_blocks
from tests.example.demo import ROOT, environment
from tests.example.shapes import Shape
from tests.helpers.processes import kill_tree, launch, start_on_free_port, stay_within_the_hour
from tests.helpers.session import Servers

FOLDER = ROOT / "example_app" / "shapes"
PAGE = DOCS / "how-to" / "shapes.md"
BASH = shutil.which("bash")
SHAPES = {
    "hub": [200, 403, 401, 401, 401, 204, 401],
    "rotation": [200, 200, 200, 204, 401],
    "product": [200, 401, 401, 403, 201, 429, *[401] * 10, 429, 401],
}
"""The statuses that the commands of each shape print."""


@pytest.mark.parametrize(("language", "suffix"), [("python", ".py"), ("bash", ".sh")])
def test_page_shows_the_files_as_they_are(language: str, suffix: str) -> None:
    shown = {block.source.strip() for block in find_blocks(PAGE, language)}
    for name in SHAPES:
        assert (FOLDER / name).with_suffix(suffix).read_text("utf-8").strip() in shown, name


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("name", "path"), [("hub", "/v1/models"), ("rotation", "/api-keys/current"), ("product", "/catalogue")]
)
async def test_shape_runs_on_postgresql_and_redis(
    open_shape: Callable[..., AbstractAsyncContextManager[Shape]],
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    name: str,
    path: str,
) -> None:
    monkeypatch.setenv("KEYAUTH_REDIS_URL", servers.fresh_redis_url("valkey"))
    monkeypatch.setenv("KEYAUTH_REDIS_TIMEOUT_S", "10")  # a busy machine is no outage
    async with open_shape(name, database_url) as shape:
        key = await shape.create_key()
        headers = {"api-key": key["token"]}
        assert (await shape.client.get(path, headers=headers)).status_code == 200
        await shape.revoke(key)
        assert (await shape.client.get(path, headers=headers)).json()["code"] == "revoked_api_key"


@pytest.fixture
def printed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield what a started shape prints."""
    log = tmp_path / "shape.log"
    module = f"example_app.shapes.{request.param}"

    def start(port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, "--port", str(port)]
        return launch(command, log, death_signal=signal.SIGTERM, cwd=tmp_path, env=environment())

    # It says that its startup is complete before it listens.
    process, _ = start_on_free_port(start, lambda _: "Uvicorn running on" in log.read_text("utf-8"), log, timeout_s=120)
    try:
        yield log.read_text("utf-8")
    finally:
        kill_tree(process)


@pytest.mark.skipif(BASH is None or shutil.which("curl") is None, reason="bash or curl is not installed")
@pytest.mark.parametrize(("printed", "statuses"), SHAPES.items(), indirect=["printed"], ids=list(SHAPES))
def test_printed_commands_show_what_they_promise(printed: str, statuses: list[int]) -> None:
    stay_within_the_hour()
    found = re.search(r"(?m)^URL=[\s\S]*?(?=^INFO)", printed)
    assert found, printed
    script = found[0]
    shell = subprocess.run([str(BASH), "-eu"], input=script, capture_output=True, text=True, check=False, timeout=120)
    assert shell.returncode == 0, shell.stderr
    assert [int(status) for status in re.findall(r"(?m)^HTTP/1\.1 (\d+)", shell.stdout)] == statuses
    promised = re.findall(r"(?m)^# (\d{3}),", script)
    assert set(promised) <= set(map(str, statuses))
    # zsh runs comments that are pasted as commands, so they contain nothing that a shell expands.
    assert not re.search(r"[^\w ,.:#]", "".join(re.findall(r"(?m)^#.*", script)))
