"""A client that openapi-python-client generates from the document: it changes only what it sends."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.stage import OpenScene, Scene

STACKS = ("sqlite-memory",)


def generate(document: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the package `keys_client` into the folder and make it importable."""
    source = folder / "openapi.json"
    source.write_text(json.dumps(document))
    config = folder / "config.yml"
    config.write_text("post_hooks: []\n")  # nothing to format
    target = ["--path", str(source), "--output-path", str(folder / "keys_client"), "--config", str(config)]
    command = [
        sys.executable,
        "-m",
        "openapi_python_client",
        "generate",
        "--fail-on-warning",
        "--meta",
        "none",
        *target,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(str(folder))
    return folder / "keys_client"


def find_call(package: Path, method: str, url: str) -> Any:
    """Return the generated function of an operation, whatever its name."""
    for file in package.glob("api/*/*.py"):
        text = file.read_text()
        if f'"method": "{method}"' in text and f'"url": "{url}"' in text.replace(".format(", '" .format("'):
            relative = file.relative_to(package.parent).with_suffix("")
            return importlib.import_module(".".join(relative.parts)).asyncio_detailed
    raise AssertionError(f"{method} {url} was not generated")


def management_of(scene: Scene) -> dict[str, Any]:
    """Return the document with only the management routes; the rest belongs to the application."""
    document = scene.app.openapi()
    return {**document, "paths": {path: item for path, item in document["paths"].items() if "/api-keys" in path}}


async def test_the_document_is_valid(open_scene: OpenScene) -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator  # slow to import, and every process collects the tests

    async with open_scene() as scene:
        document = management_of(scene)
        assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
        schemas = document["components"]["schemas"]
        for name in ("KeyPatch", "OwnerFields", "NewKey", "Limit", "RotateIn", "ReasonIn"):
            assert not [field for field, of in schemas[name]["properties"].items() if "default" in of], name
        assert not {"KeyPatch", "OwnerFields", "RotateIn", "ReasonIn"} & {
            name for name, schema in schemas.items() if "required" in schema
        }


async def test_a_generated_client_creates_patches_rotates_and_revokes(
    open_scene: OpenScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scene() as scene:
        package = generate(management_of(scene), tmp_path, monkeypatch)
        models = importlib.import_module("keys_client.models")
        session = await scene.session()
        client = importlib.import_module("keys_client").AuthenticatedClient(base_url="http://test", token=session)
        headers = {"Authorization": f"Bearer {session}"}
        transport = httpx.ASGITransport(scene.app, client=("203.0.113.7", 50_000))
        client.set_async_httpx_client(httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers))

        new = models.NewKey(name="generated", scopes=["items:read"], allowed_ips=["203.0.113.0/24"])
        made = await find_call(package, "post", "/api-keys")(client=client, body=new)
        assert made.status_code == 201, made.content
        key = made.parsed
        await scene.auth.keys.update(key.id, enabled=False)
        before = await scene.auth.keys.get(key.id)

        patch = find_call(package, "patch", "/api-keys/{id}")
        answer = await patch(key.id, client=client, body=models.KeyPatch(hourly_limit=5))
        assert answer.status_code == 200, answer.content
        after = await scene.auth.keys.get(key.id)
        assert (after.hourly_limit, after.enabled) == (5, False)
        unchanged = ("name", "scopes", "allowed_ips", "allowed_origins", "metadata", "expires_at", "status")
        assert [getattr(after, field) for field in unchanged] == [getattr(before, field) for field in unchanged]

        await patch(key.id, client=client, body=models.KeyPatch(enabled=True))
        rotated = await find_call(package, "post", "/api-keys/{id}/rotate")(
            key.id, client=client, body=models.RotateIn(overlap_s=0)
        )
        assert (rotated.status_code, rotated.parsed.id) == (201, key.id)
        assert rotated.parsed.token != key.token
        revoked = await find_call(package, "delete", "/api-keys/{id}")(key.id, client=client)
        assert revoked.status_code == 204
        assert (await scene.auth.keys.get(key.id)).status == "revoked"
