"""The pictures in the docs, taken only with KEYAUTH_TEST_PICTURES=1, since machines draw different bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.showcase import furnish
from tests.dashboard.visitor import Visitor

LOOKS = [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")]
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"
IN_EVERY_LOOK = {"list", "key"}
IN_ONE_LOOK = {
    ("new-key", 1280, "light"),
    ("new-key", 360, "dark"),
    ("token", 1280, "light"),
    ("revoke", 1280, "dark"),
    ("usage", 1280, "light"),
    ("audit", 1280, "dark"),
}
LONGEST_PX = 1700
# Two frames later, what has just been opened is drawn.
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# An example token and address in place of the real ones.
DISGUISE = """(all) => all.forEach((node) => {
    node.textContent = node.textContent
        .replace(/http:[^']+/, "https://api.parrot.example/v1/models")
        .replace(/_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}/, "_Examp1eKey00_000000000000000000000000000000000000000000025Mbn7");
})"""


@pytest.mark.skipif("KEYAUTH_TEST_PICTURES" not in os.environ, reason="set KEYAUTH_TEST_PICTURES=1 to take them")
@pytest.mark.parametrize(("width", "color_scheme"), LOOKS)
@pytest.mark.timeout(180)
def test_pictures_for_the_docs(make_visitor: Callable[..., Visitor], width: int, color_scheme: str) -> None:
    visitor = make_visitor(
        context=f"pictures {width} {color_scheme}", width=width, color_scheme=color_scheme, transparency="no-preference"
    )
    furnish(visitor.site, visitor.user)
    visitor.site.close_days()

    def take(name: str, whole: bool = False) -> None:
        if name in IN_EVERY_LOOK or (name, width, color_scheme) in IN_ONE_LOOK:
            visitor.page.mouse.move(0, 0)
            shoot(visitor.page, PICTURES / f"dashboard-{name}-{width}-{color_scheme}.png", whole)

    visitor.open_list()
    expect(visitor.page.locator(".cell-usage .skeleton")).to_have_count(0)
    take("list", whole=True)
    visitor.start_new_key("prod-eu-api", "completions:write")
    take("new-key")
    visitor.press("Create key")
    visitor.dialog.locator(".token, .curl").evaluate_all(DISGUISE)
    take("token")
    visitor.press("I have saved it")
    visitor.page.get_by_role("button", name="Close this message").click()
    visitor.page.get_by_role("link", name="prod-api-server").click()
    expect(visitor.page.locator(".chart-canvas svg")).to_be_visible()
    take("key", whole=True)
    visitor.press("Revoke")
    take("revoke")
    visitor.page.keyboard.press("Escape")
    visitor.page.locator(".back").click()
    visitor.page.get_by_role("link", name="Usage").click()
    expect(visitor.page.locator(".chart-canvas svg")).to_be_visible()
    take("usage")
    visitor.page.get_by_role("link", name="Audit").click()
    expect(visitor.page.locator(".finding").first).to_be_visible()
    take("audit", whole=True)


def shoot(page: Page, path: Path, whole: bool) -> None:
    """A picture of the window, or of the whole page down to where it would become too long for the docs."""
    page.evaluate(DRAWN)
    size = page.viewport_size
    assert size is not None
    height = page.evaluate("document.documentElement.scrollHeight") if whole else size["height"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(height, LONGEST_PX)}
    page.screenshot(path=path, full_page=whole, clip=clip)  # type: ignore[arg-type]  # a plain dictionary will do
