"""For everyone: keyboard, screen readers, contrast, narrow screens. axe-core looks for what machines can find."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # no types inside
from playwright.sync_api import expect

from tests.dashboard.site import ago
from tests.dashboard.visitor import Visitor

MakeVisitor = Callable[..., Visitor]
RULES = {"resultTypes": ["violations"]}


def violations(visitor: Visitor) -> list[str]:
    """What axe-core calls serious or critical."""
    found = Axe().run(visitor.page, options=RULES).response["violations"]
    return [
        f"{rule['id']}: {node['html']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (360, "dark")])
def test_axe_finds_nothing_serious_in_any_view_or_dialog(
    make_visitor: MakeVisitor, width: int, color_scheme: str
) -> None:
    # axe-core is put into the page as a string, which the page's own policy forbids.
    visitor = make_visitor(context="without a policy", bypass_csp=True, width=width, color_scheme=color_scheme)
    made = furnish(visitor)
    found = {}
    visitor.open_list()
    expect(visitor.page.locator(".spark").first).to_be_visible()
    found["list"] = violations(visitor)
    visitor.press("New API key")
    visitor.press("Create key")
    visitor.dialog.get_by_text("Where it may be used from").click()
    visitor.dialog.get_by_text("Managing keys").click()
    found["new key"] = violations(visitor)
    visitor.field("Name").fill("x")
    visitor.press("Create key")
    expect(visitor.dialog.locator(".token")).to_be_visible()
    found["token"] = violations(visitor)
    visitor.press("I have saved it")
    expect(visitor.dialog).to_have_count(0)
    visitor.page.get_by_role("link", name="rotating").click()
    expect(visitor.page.locator(".chart-canvas svg")).to_be_visible()
    found["key"] = violations(visitor)
    # What these are made of was looked at in both looks above; once is enough for how they put it together.
    for action in ("Edit", "Rotate", "Disable", "Revoke") if color_scheme == "light" else ():
        visitor.page.get_by_role("button", name=action, exact=True).click()
        found[action] = violations(visitor)
        visitor.page.keyboard.press("Escape")
    visitor.press("Log out")
    expect(visitor.heading).to_have_text("Log in")
    found["log in"] = violations(visitor)
    assert {view: serious for view, serious in found.items() if serious} == {}
    assert made


def furnish(visitor: Visitor) -> str:
    """One key in every state. Gives the id of the one with all there is to see."""
    auth, run = visitor.site.auth, visitor.site.run
    run(auth.keys.revoke(visitor.make_key("revoked").key.id))
    run(auth.keys.update(visitor.make_key("disabled").key.id, enabled=False))
    expired = visitor.make_key("expired")
    visitor.site.set_times(expired.key.id, expires_at=ago(days=1))
    made = visitor.make_key("rotating", scopes=["files:read"], expires_at=datetime.now(UTC) + timedelta(days=2))
    visitor.site.add_usage(made.key.id, {0: (3, 1), 5: (900, 0)})
    run(auth.keys.rotate(made.key.id, timedelta(days=1)))
    visitor.site.use_secret(made.key.id, made.token, datetime.now(UTC) + timedelta(seconds=1))
    return made.key.id


def test_all_of_it_can_be_done_without_a_mouse(visitor: Visitor) -> None:
    keyboard = visitor.page.keyboard
    visitor.open_list()
    visitor.page.get_by_role("button", name="New API key").first.focus()
    keyboard.press("Enter")
    expect(visitor.field("Name")).to_be_focused()
    keyboard.type("by keyboard")
    keyboard.press("Enter")
    assert visitor.shown_token
    visitor.dialog.get_by_role("button", name="I have saved it").focus()
    keyboard.press("Enter")
    expect(visitor.page.get_by_role("button", name="New API key").first).to_be_focused()
    menu = visitor.page.get_by_role("button", name="Actions for by keyboard")
    menu.focus()
    keyboard.press("ArrowDown")
    expect(visitor.page.get_by_role("menuitem", name="Edit")).to_be_focused()
    expect(menu).to_have_attribute("aria-expanded", "true")
    keyboard.press("Escape")
    expect(menu).to_be_focused()
    expect(menu).to_have_attribute("aria-expanded", "false")
    keyboard.press("Enter")
    keyboard.press("ArrowUp")
    expect(visitor.page.get_by_role("menuitem", name="Revoke")).to_be_focused()
    keyboard.press("Enter")
    expect(visitor.dialog).to_have_accessible_name("Revoke this key?")
    keyboard.press("Escape")
    expect(menu).to_be_focused()


def test_nothing_sticks_out_of_a_narrow_screen(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(width=360)
    key_id = furnish(visitor)
    visitor.make_key("x" * 100)

    def overhang() -> int:
        pixels: int = visitor.page.evaluate(
            """() => Math.max(
                document.documentElement.scrollWidth - innerWidth,
                ...[...document.querySelectorAll(".dialog-body")].map((body) => body.scrollWidth - body.clientWidth),
            )"""
        )
        return pixels

    visitor.open_list()
    assert overhang() <= 0
    visitor.start_new_key("y" * 100)
    assert overhang() <= 0
    visitor.press("Create key")
    assert visitor.shown_token
    assert overhang() <= 0
    visitor.press("I have saved it")
    visitor.open(f"/settings/api-keys#/keys/{key_id}")
    expect(visitor.page.locator(".chart-canvas svg")).to_be_visible()
    assert overhang() <= 0
