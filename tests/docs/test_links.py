"""Links lead to existing files and headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, README, find_anchors, name_of, prose_of

_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in _LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (anchor and anchor not in find_anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_a_page_of_the_site_links_to_what_the_site_has(page: Path) -> None:
    """A link out of docs/ leads somewhere in the repository, and nowhere on the site."""
    targets = [target for target in _LINK.findall(prose_of(page)) if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in targets if DOCS not in (page.parent / target).resolve().parents] == []


@pytest.mark.parametrize("page", [README, DOCS / "index.md"], ids=name_of)
def test_every_page_of_the_docs_is_linked_from(page: Path) -> None:
    linked = {(page.parent / target.partition("#")[0]).resolve() for target in _LINK.findall(prose_of(page))}
    missing = set(DOCS.rglob("*.md")) - {DOCS / "index.md"} - linked
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_headings_of_a_page_have_different_anchors(page: Path) -> None:
    headings = re.findall(r"^#{1,6} +(.+?)\s*$", prose_of(page), re.MULTILINE)
    assert len(find_anchors(page)) == len(headings)
