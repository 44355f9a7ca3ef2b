"""The README and docs as data: pages, fenced blocks, tables, headings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil import Document
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

BASH = shutil.which("bash") or ""

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]

ProblemType = dict[str, str]

_TABLE_RULE = re.compile(r"\|(?: *:?-+:? *\|)+")
_LINK = re.compile(r"^\[([^\]]+)\]\([^)]+\)$")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `line` is where it starts, from 1."""

    page: Path
    line: int
    source: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def name_of(page: Path) -> str:
    """A page's name in test ids."""
    return str(page.relative_to(ROOT))


def find_blocks(page: Path, languages: str) -> Iterator[Block]:
    """The blocks of a page in these languages, a regular expression."""
    document = Document(page.read_text("utf-8"), str(page))
    for region in FencedCodeBlockLexer(languages)(document):
        line = document.text.count("\n", 0, region.start) + 1
        yield Block(page, line, str(region.lexemes["source"]))


def find_rows(page: Path, *columns: str) -> list[ProblemType]:
    """The rows of every table of a page that has these columns, as column -> cell without backticks."""
    rows: list[ProblemType] = []
    header: list[str] | None = None
    previous: list[str] = []
    for line in page.read_text("utf-8").splitlines():
        if not line.startswith("|"):
            header = None
        elif _TABLE_RULE.fullmatch(line.strip()):
            header = previous
        elif header is None:
            previous = _cells(line)
        elif set(columns) <= set(header):
            rows.append(dict(zip(header, _cells(line), strict=True)))
    return rows


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [_LINK.sub(r"\1", cell.replace("\\|", "|").strip()).strip("`") for cell in cells]


def prose_of(page: Path) -> str:
    """A page's text without its fenced blocks and comments."""
    text = re.sub(r"<!--.*?-->", "", page.read_text("utf-8"), flags=re.DOTALL)
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def find_anchors(page: Path) -> set[str]:
    """The fragments that a page's headings have, as GitHub and MkDocs make them."""
    return {_slug(heading) for heading in _HEADING.findall(prose_of(page))}


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
