"""``keyauth check``: is this set up so that the application would start, and work?"""

import asyncio

import typer
from rich.text import Text

from fastapi_keyauth.cli.checks import CHECKS, Finding, check_settings, check_versions
from fastapi_keyauth.cli.output import Json, print_json, print_table
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.runner import Exit
from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.settings.settings import KeyAuthSettings

_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def check(as_json: Json = False) -> None:
    """Check settings, database, tables, Redis, clocks, versions. Ends with 3 where the application would not work."""
    settings, findings = check_settings()
    findings += check_versions()
    if settings is not None:
        findings += asyncio.run(_look(settings))
    is_well = all(finding.level != "error" for finding in findings)
    if as_json:
        items = [{"name": found.name, "level": found.level, "detail": found.says} for found in findings]
        print_json({"ok": is_well, "findings": items})
    else:
        rows = [(Text(found.level, style=_COLOURS[found.level]), found.name, found.says) for found in findings]
        print_table(("", "what", "finding"), rows)
    if not is_well:
        raise typer.Exit(Exit.UNAVAILABLE)


async def _look(settings: KeyAuthSettings) -> list[Finding]:
    try:
        auth = KeyAuth(settings, telemetry=False)
    except SetupError as error:
        return [Finding("settings", "error", str(error))]
    findings: list[Finding] = []
    with tracking("checking", len(CHECKS)) as tracker:
        for look in CHECKS:
            findings += [found async for found in look(auth)]
            tracker.advance()
    return findings
