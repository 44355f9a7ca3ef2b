"""Mutants that may survive, by the table in docs/explanation/mutation.md."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "explanation/mutation.md"
_ROW = re.compile(r"^\| `([0-9a-f]{8})` \| .+ \| .+ \| .{20,} \|$", re.MULTILINE)


def find_explained() -> set[str]:
    """Return the ids of the mutants that the page explains."""
    return set(_ROW.findall(PAGE.read_text("utf-8")))
