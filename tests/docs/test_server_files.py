"""The files of the deployment pages: nginx runs with its own, and the others can be read."""

from __future__ import annotations

import configparser
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from websockets.sync.client import connect

from fastapi_keyauth import KeyAuth, KeyAuthSettings
from tests.docs.pages import DOCS, Block, find_blocks
from tests.helpers.processes import kill_tree, launch, start_on_free_port
from tests.helpers.workers import Workers

NGINX = shutil.which("nginx") or next((path for path in ("/usr/sbin/nginx",) if Path(path).exists()), "")
CLIENT = "203.0.113.9"
DEADLINE_S = 60.0


def nginx_file(folder: Path, port: int, upstream: str) -> str:
    """The server of the page, on loopback and without TLS."""
    (block,) = find_blocks(DOCS / "how-to/proxy.md", "nginx")
    server = re.sub(r"^ *ssl_.*\n", "", block.source, flags=re.MULTILINE)
    server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};").replace("127.0.0.1:8000", upstream)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"daemon off;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{server}}}\n"


@pytest.fixture
def through_nginx(
    tmp_path: Path, start_workers: Callable[..., Workers]
) -> Iterator[Callable[[dict[str, str]], tuple[str, Workers]]]:
    processes = []

    def start(env: dict[str, str]) -> tuple[str, Workers]:
        workers = start_workers("tests.helpers.workers_app:app", 2, env)
        file, log = tmp_path / "nginx.conf", tmp_path / "nginx.log"

        def start_nginx(port: int) -> subprocess.Popen[bytes]:
            file.write_text(nginx_file(tmp_path, port, workers.base_url.removeprefix("http://")))
            command = [NGINX, "-e", str(log), "-c", str(file)]
            return launch(command, log, death_signal=signal.SIGTERM, cwd=tmp_path)

        def responds(port: int) -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/models").status_code == 401
            except httpx.TransportError:
                return False

        process, port = start_on_free_port(start_nginx, responds, log, timeout_s=DEADLINE_S)
        processes.append(process)
        return f"127.0.0.1:{port}", workers

    yield start
    for process in processes:
        kill_tree(process)


@pytest.mark.skipif(not NGINX, reason="needs nginx, a package of Debian")
async def test_behind_nginx_the_address_is_the_clients_and_sockets_pass(
    tmp_path: Path, through_nginx: Callable[[dict[str, str]], tuple[str, Workers]]
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}"
    async with KeyAuth(KeyAuthSettings(_env_file=None, database_url=url)).connect() as auth:
        made = await auth.keys.create("ada", "n", allowed_ips=[CLIENT])
    env = {"KEYAUTH_DATABASE_URL": url, "KEYAUTH_TRUSTED_PROXIES": "127.0.0.1"}
    address, _ = through_nginx(env)
    sent = {"api-key": made.token, "x-forwarded-for": f"198.51.100.1, {CLIENT}"}
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        assert (await client.get("/models", headers=sent)).status_code == 200
        elsewhere = await client.get("/models", headers={**sent, "x-forwarded-for": f"{CLIENT}, 198.51.100.1"})
        assert elsewhere.json()["code"] == "address_not_allowed"
    with connect(f"ws://{address}/ws", additional_headers=sent, proxy=None) as socket:
        assert made.key.id in str(socket.recv())


def test_the_compose_file_names_only_settings_and_waits_for_the_tables() -> None:
    (block,) = find_blocks(DOCS / "how-to/docker.md", "yaml")
    services = yaml.safe_load(block.source)["services"]
    names = {name.removeprefix("KEYAUTH_").lower() for name in services["app"]["environment"]}
    assert names <= KeyAuthSettings.model_fields.keys()
    assert services["app"]["environment"] == services["prepare"]["environment"]
    assert services["app"]["depends_on"]["prepare"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("block", list(find_blocks(DOCS / "how-to/systemd.md", "ini")), ids=str)
def test_a_unit_can_be_read(block: Block) -> None:
    source = re.sub(r"\\\n", "", block.source)
    if "[" not in source.splitlines()[0]:
        source = f"[Service]\n{source}"
    parsed = configparser.RawConfigParser(strict=True)
    parsed.read_string(source)
    assert parsed.sections()
