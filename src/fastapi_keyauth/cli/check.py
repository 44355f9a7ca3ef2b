"""``keyauth check``: whether the application would start and work with these settings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from fastapi_keyauth.cli.output import Json, print_json
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.runner import Exit
from fastapi_keyauth.cli.tables import print_table

if TYPE_CHECKING:
    from fastapi_keyauth.cli.checks import Finding
    from fastapi_keyauth.settings.settings import KeyAuthSettings

_COLORS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def check(as_json: Json = False) -> None:
    """Check settings, versions, database, tables, Redis, clocks and hashing. The exit code is 3 if one fails."""
    from rich.text import Text

    from fastapi_keyauth.cli.checks import check_settings, check_versions

    settings, findings = check_settings()
    findings += check_versions()
    if settings is not None:
        findings += asyncio.run(_check_services(settings))
    is_well = all(finding.level != "error" for finding in findings)
    if as_json:
        items = [{"name": found.name, "level": found.level, "detail": found.says} for found in findings]
        print_json({"ok": is_well, "findings": items})
    else:
        rows = [(Text(found.level, style=_COLORS[found.level]), found.name, found.says) for found in findings]
        print_table(("", "what", "finding"), rows)
    if not is_well:
        raise typer.Exit(Exit.UNAVAILABLE)


async def _check_services(settings: KeyAuthSettings) -> list[Finding]:
    from fastapi_keyauth.cli.checks import CHECKS

    findings: list[Finding] = []
    with tracking("checking", len(CHECKS)) as tracker:
        for run in CHECKS:
            findings += [found async for found in run(settings)]
            tracker.advance()
    return findings
