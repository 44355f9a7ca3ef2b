"""What the page for customers tells them to send works, against a real server."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fastapi_keyauth import token_pattern
from tests.docs.folder import SHOWN_URL, Folder
from tests.docs.pages import BASH, DOCS, find_blocks

PAGE = DOCS / "how-to/for-your-customers.md"
TOKEN = token_pattern("parrot")
NODE = shutil.which("node")


def shown(language: str) -> list[str]:
    """Return the blocks of the page in this language, for a server on this machine."""
    return [block.source.replace("https://api.example.com", SHOWN_URL) for block in find_blocks(PAGE, language)]


@pytest.mark.skipif(not (BASH and shutil.which("curl")), reason="needs curl and bash")
def test_a_customer_can_send_a_key_with_curl_and_javascript(tmp_path: Path) -> None:
    """The page's Python runs in test_examples.py. This takes the app from its hidden block."""
    app = re.search(r"^auth = KeyAuth.*?(?=^async with)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert app
    imports = (
        "from typing import Annotated\n"
        "from fastapi import Depends, FastAPI\n"
        "from fastapi_keyauth import KeyAuth, KeyAuthSettings, KeyPrincipal\n"
    )
    with Folder(tmp_path, {"main.py": imports + app[0]}, {"KEYAUTH_APP": "main:app"}) as folder:
        created = folder.run("keyauth keys create --owner acme --name n")
        folder.variables["PARROT_API_KEY"] = TOKEN.findall(created)[0]
        export, curl = shown("bash")
        assert export.startswith("export PARROT_API_KEY=")
        assert "parrot-1" in folder.run(curl)
        if NODE:
            call, get = shown("javascript")
            script = f"{call}\n{get}\nconsole.log((await get('/v1/models')).status);\n"
            printed = folder.run(f"{NODE} --input-type=module <<'END'\n{script}END\n")
            assert "parrot-1" in printed
            assert printed.endswith("200\n")
