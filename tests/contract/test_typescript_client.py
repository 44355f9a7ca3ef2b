"""A client whose types openapi-typescript generates from the document: it changes what it sends, and nothing else."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.helpers.served import served
from tests.helpers.stage import OpenScene

STACKS = ("sqlite-memory",)
PROGRAM = Path(__file__).with_name("typescript_client.ts")
PACKAGES = Path(sys.prefix) / "node" / "node_modules"
"""Where `make test` installs openapi-fetch, openapi-typescript and typescript, if npm is installed."""
COMPILE = ("--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck")


async def run_node(folder: Path, *arguments: str) -> str:
    """Return what a program prints."""
    process = await asyncio.create_subprocess_exec(
        "node", *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, (out + errors).decode()
    return out.decode()


@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.skipif(not (PACKAGES / "openapi-typescript").exists(), reason=f"openapi-typescript is not in {PACKAGES}")
async def test_a_generated_client_creates_patches_rotates_and_revokes(open_scene: OpenScene, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    shutil.copy(PROGRAM, tmp_path)
    async with open_scene() as scene:
        (tmp_path / "openapi.json").write_text(json.dumps(scene.app.openapi()))
        await run_node(tmp_path, str(PACKAGES / "openapi-typescript/bin/cli.js"), "openapi.json", "-o", "schema.d.ts")
        await run_node(tmp_path, str(PACKAGES / "typescript/bin/tsc"), *COMPILE, PROGRAM.name)
        async with served(scene.app, "h11") as port:
            address = f"http://127.0.0.1:{port}"
            printed = await run_node(tmp_path, "typescript_client.js", address, await scene.session())
    done = json.loads(printed)
    created, renamed, rotated = done["created"], done["renamed"], done["rotated"]
    assert {**done["disabled"], "token": created["token"]} == {**created, "enabled": False, "status": "disabled"}
    assert renamed == {**done["disabled"], "name": "renamed"}
    assert done["enabled"] == {**renamed, "enabled": True, "status": "active"}
    assert rotated["token"] != created["token"]
    assert rotated["secrets"][1]["expires_at"] is not None
    assert (done["revoked"], done["error"]["code"]) == (204, "key_not_active")
