"""A reader who follows the tutorial gets what its pages say, against real servers."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from uvicorn.main import main as uvicorn_command

from fastapi_keyauth import token_pattern
from tests.docs.folder import Folder
from tests.docs.pages import BASH, DOCS, find_blocks
from tests.helpers.processes import stay_within_the_hour, wait_until
from tests.helpers.session import Servers

PARTS = DOCS / "tutorial"
TOKEN = token_pattern("parrot")
REVOKED_WITHIN_S = 30.0
"""A guard against hanging: without Redis, other processes learn of a revocation within ``max_staleness_s``."""

pytestmark = pytest.mark.skipif(not (BASH and shutil.which("curl")), reason="needs curl and bash")


def app_of(part: str) -> str:
    """Return the ``main.py`` of a part: its first Python block."""
    return next(find_blocks(PARTS / f"{part}.md", "python")).source


def commands_of(part: str) -> list[str]:
    """Return the blocks of a part that a reader runs against the started app."""
    blocks = [block.source for block in find_blocks(PARTS / f"{part}.md", "bash")]
    return [block for block in blocks if re.search(r"\b(curl|keyauth) ", block) and not re.search("sudo|pip ", block)]


def variables_of(part: str) -> dict[str, str]:
    """Return the settings of a part's ``.env``."""
    (block,) = find_blocks(PARTS / f"{part}.md", "dotenv")
    return dict(line.split("=", 1) for line in block.source.splitlines())


def test_part_1_creates_a_key_and_revokes_it(tmp_path: Path) -> None:
    create, call, refused, revoke, call_again = commands_of("first-key")
    with Folder(tmp_path, {"main.py": app_of("first-key")}, variables_of("first-key")) as folder:
        printed = folder.run(create + 'echo "$KEY"')
        key = f"KEY={TOKEN.findall(printed)[0]}\n"
        assert folder.run(key + call) == '["parrot-1"]' * 2
        codes = re.findall(r'"code": "(\w+)"', folder.run(key + refused))
        assert list(dict.fromkeys(codes)) == ["missing_api_key", "malformed_api_key"]
        shown = json.loads(next(b.source for b in find_blocks(PARTS / "first-key.md", "text")))
        assert shown.items() <= json.loads(folder.run("curl -s http://127.0.0.1:8000/models")).items()
        _, script = find_blocks(PARTS / "first-key.md", "python")
        (folder.place / "create_key.py").write_text(script.source)
        assert TOKEN.fullmatch(folder.run("python create_key.py").strip())
        folder.run(key + revoke)
        wait_until(lambda: "revoked_api_key" in folder.run(key + call_again), timeout_s=REVOKED_WITHIN_S)
        assert "called by laptop of acme" in folder.server.log()


def test_part_2_tells_keys_apart_and_limits_them(tmp_path: Path) -> None:
    create, scopes, left, tiny = commands_of("scopes-and-limits")
    files = {"main.py": app_of("scopes-and-limits")}
    with Folder(tmp_path, files, variables_of("first-key")) as folder:
        stay_within_the_hour()
        printed = folder.run("".join([create, scopes, left, tiny]))
    assert printed.startswith('["parrot-1"]{"answer":"hello!"}')
    assert '"code": "insufficient_scope"' in printed
    assert '"missing_scopes": ["models:run"]' in printed
    (shown,) = [b.source for b in find_blocks(PARTS / "scopes-and-limits.md", "text")]
    assert re.sub(r"t=\d+", "t=1234", shown) in re.sub(r"t=\d+", "t=1234", printed.replace("\r", ""))
    assert re.findall(r"^\d{3}$", printed, re.MULTILINE) == ["200", "200", "200", "429"]


def test_part_3_lets_a_user_create_a_key(tmp_path: Path) -> None:
    (commands,) = commands_of("users")
    with Folder(tmp_path, {"main.py": app_of("users")}, variables_of("first-key")) as folder:
        created, _, listed = folder.run(commands).partition("}{")
    assert len(TOKEN.findall(created)) == 1
    assert json.loads(created + "}")["scopes"] == ["models:read"]
    assert [key["name"] for key in json.loads("{" + listed)["items"]] == ["ci"]


def test_part_4_counts_over_all_workers(tmp_path: Path, servers: Servers) -> None:
    check, count, revoke = commands_of("postgres-and-redis")
    with servers.fresh_postgres_url() as database_url:
        variables = {
            **variables_of("postgres-and-redis"),
            "KEYAUTH_DATABASE_URL": database_url,
            "KEYAUTH_REDIS_URL": servers.fresh_redis_url("valkey"),
            "KEYAUTH_REDIS_TIMEOUT_S": "10",  # Load on the machine must not count as an outage.
        }
        with Folder(tmp_path, {"main.py": app_of("users")}, variables, workers=2) as folder:
            assert "redis" in folder.run(check)
            stay_within_the_hour()
            counted = folder.run(count + 'echo "$KEY"')
            (shown,) = [b.source for b in find_blocks(PARTS / "postgres-and-redis.md", "text")]
            assert counted.split()[:4] == shown.split()
            assert "revoked_api_key" in folder.run(f"KEY={TOKEN.findall(counted)[0]}\n" + revoke)


def test_part_5_starts_uvicorn_with_options_that_exist() -> None:
    (unit,) = [block.source for block in find_blocks(PARTS / "deployment.md", "ini")]
    (command,) = re.findall(r"^ExecStart=(.*)", unit.replace("\\\n", " "), re.MULTILINE)
    words = shlex.split(command)
    known = {name for option in uvicorn_command.params for name in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known
    assert words[words.index("--workers") + 1] == "4"
    (settings,) = find_blocks(PARTS / "deployment.md", "dotenv")
    address = words[words.index("--forwarded-allow-ips") + 1]
    assert f"KEYAUTH_TRUSTED_PROXIES={address}\n" in settings.source
