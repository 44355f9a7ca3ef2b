"""The diagrams are readable in both color schemes and on a phone, and say what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fastapi_keyauth import KeyAuthSettings
from fastapi_keyauth.keys.management import MAX_OVERLAP
from fastapi_keyauth.limiter.leases.clock import WAIT_SHARE
from tests.docs.pages import DOCS, PAGES, find_rows, name_of

NAMES = ("request", "rotation", "lease", "deployment")
DIAGRAMS = [DOCS / "images" / f"{name}.svg" for name in NAMES]
PHONE_WIDTH = 360
MIN_CONTRAST = 4.5
"""WCAG 2.2, success criterion 1.4.3."""
SVG = "{http://www.w3.org/2000/svg}"

_RULE = re.compile(r"(text|\.\w+) \{[^}]*?fill: (#[0-9a-f]{6})")


def texts_of(name: str) -> list[str]:
    """Return the lines of text of a diagram, in their order."""
    tree = ElementTree.parse(DOCS / "images" / f"{name}.svg")  # noqa: S314  # our own file
    return [element.text or "" for element in tree.iter(f"{SVG}text")]


def schemes_of(path: Path) -> list[dict[str, str]]:
    """Return the fills of a diagram by class, in the light and in the dark scheme."""
    light, _, dark = path.read_text("utf-8").partition("@media (prefers-color-scheme: dark)")
    fills = dict(_RULE.findall(light))
    return [fills, fills | dict(_RULE.findall(dark.partition("</style>")[0]))]


def luminance(color: str) -> float:
    """Return the relative luminance of a color, as WCAG defines it."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colors."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("path", DIAGRAMS, ids=name_of)
def test_a_diagram_is_described_fits_a_phone_and_is_on_a_page(path: Path) -> None:
    root = ElementTree.parse(path).getroot()  # noqa: S314  # our own file
    assert root.find(f"{SVG}title") is not None
    assert root.find(f"{SVG}desc") is not None
    assert int(root.attrib["viewBox"].split()[2]) <= PHONE_WIDTH
    assert "href" not in path.read_text("utf-8")
    assert any(f"images/{path.name})" in page.read_text("utf-8") for page in PAGES)


@pytest.mark.parametrize("path", DIAGRAMS, ids=name_of)
def test_text_has_enough_contrast_in_both_schemes(path: Path) -> None:
    for fills in schemes_of(path):
        for text in ("text", ".quiet"):
            for ground in (".card", ".box", ".soft", ".old", ".back"):
                assert contrast(fills[text], fills[ground]) >= MIN_CONTRAST, (text, ground)


def test_the_request_passes_the_checks_in_their_order() -> None:
    codes = [row["code"] for row in find_rows(DOCS / "reference/errors.md", "code", "failed attempt")]
    shown = [word.split()[0] for word in texts_of("request") if "_" in word]
    assert shown == [code for code in codes if code in shown]


def test_the_numbers_of_the_diagrams_are_the_real_ones() -> None:
    lease_ms = KeyAuthSettings(_env_file=None).lease_ms
    lease = " ".join(texts_of("lease"))
    assert f"for {lease_ms} ms" in lease
    assert f"waits {lease_ms * WAIT_SHARE:.0f} ms" in lease
    assert f"overlap, up to {MAX_OVERLAP.days} days" in texts_of("rotation")
