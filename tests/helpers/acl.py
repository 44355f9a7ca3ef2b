"""The commands that an ACL must allow, as docs/how-to/permissions.md lists them."""

import re
from pathlib import Path

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to/permissions.md"


def service_commands(kind: str | None = None) -> list[str]:
    """Return the commands that the service sends.

    Args:
        kind: "Sentinel" or "a cluster". None: a single server.
    """
    wanted = ["for a URL with a database", "for a URL with `client_name`", *([f"for {kind}"] if kind else [])]
    user = _section().partition("```text\n")[2].partition("```")[0]
    return _commands(user) + [command for beginning in wanted for command in _commands(_bullet(beginning))]


def command_line_commands() -> list[str]:
    """Return the additional commands that the command line sends."""
    return _commands(_bullet("for [`keyauth blocks`"))


def _section() -> str:
    return _PAGE.read_text(encoding="utf-8").partition("\n## Redis\n")[2].partition("\n## ")[0]


def _bullet(beginning: str) -> str:
    (bullet,) = [line for line in _section().splitlines() if line.startswith(f"- {beginning}")]
    return bullet.partition(", and on")[0]


def _commands(text: str) -> list[str]:
    found = re.findall(r"\+([a-z]+(?:\|[a-z]+)?)", text)
    assert found, text
    return found
