"""The commands that an ACL must allow, as docs/how-to/redis.md lists them."""

import re
from pathlib import Path

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to/redis.md"


def service_commands(heading: str | None = None) -> list[str]:
    """Return the commands that the service uses.

    Args:
        heading: Heading of the section with further commands. None for those of a single server only.
    """
    return _commands(_main_bullet().partition(";")[0]) + (_commands(_further_bullet(heading)) if heading else [])


def command_line_commands() -> list[str]:
    """Return the additional commands that the command line uses."""
    return _commands(_main_bullet().partition(";")[2])


def _main_bullet() -> str:
    return _bullet_from(_PAGE.read_text(encoding="utf-8"), "- With an ACL, allow the keys")


def _further_bullet(heading: str) -> str:
    _, _, section = _PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    return _bullet_from(section, "- With an ACL, also allow").partition(";")[0]


def _bullet_from(text: str, beginning: str) -> str:
    return text[text.index(beginning) :].partition("\n- ")[0]


def _commands(bullet: str) -> list[str]:
    return re.findall(r"`([A-Z|]+)`", bullet)
