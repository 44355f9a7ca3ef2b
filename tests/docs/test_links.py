"""Links lead to existing files and headings, and the menu of the site leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, README, ROOT, find_anchors, name_of, prose_of

SECTIONS = ("tutorial", "how-to", "reference", "explanation")
OTHERS = ("CHANGELOG", "CONTRIBUTING", "SECURITY")

_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / f"{name}.md" for name in OTHERS)], ids=name_of)
def test_relative_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in _LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        is_picture = file.suffix in {".png", ".svg"}  # its anchor selects a color scheme
        anchors = {"only-light", "only-dark"} if is_picture else find_anchors(file) if file.is_file() else set()
        if not file.is_file() or (anchor and anchor not in anchors):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_a_page_of_the_site_links_to_what_the_site_has(page: Path) -> None:
    """A link out of docs/ leads somewhere in the repository, and nowhere on the site."""
    targets = [target for target in _LINK.findall(prose_of(page)) if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in targets if DOCS not in (page.parent / target).resolve().parents] == []


def test_the_menu_has_every_page_once() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2].partition("\n\n")[0]
    named = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", menu, re.MULTILINE)
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert sorted(named) == sorted([*pages, "changelog.md"])  # docs/_hooks.py adds the changelog


@pytest.mark.parametrize("page", [README, DOCS / "index.md"], ids=name_of)
def test_the_readme_and_the_landing_page_lead_to_every_section(page: Path) -> None:
    linked = {(page.parent / target.partition("#")[0]).resolve() for target in _LINK.findall(prose_of(page))}
    assert DOCS / "index.md" in {*linked, page}
    assert {section for section in SECTIONS if not any(DOCS / section in target.parents for target in linked)} == set()


def test_every_page_is_in_a_section() -> None:
    outside = {page for page in DOCS.rglob("*.md") if page.parent.name not in SECTIONS}
    assert outside == {DOCS / "index.md"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_headings_of_a_page_have_different_anchors(page: Path) -> None:
    headings = re.findall(r"^#{1,6} +(.+?)\s*$", prose_of(page), re.MULTILINE)
    assert len(find_anchors(page)) == len(headings)
