"""The filter by creator and the exemption from the policy, in light, dark and forced colors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.dashboard.axe import violations_in_all_colors
from tests.dashboard.chromium import Chromium
from tests.dashboard.site import PAGE
from tests.dashboard.visitor import Visitor

AT = "/lifetimes" + PAGE


@pytest.fixture
def admin(make_visitor: Callable[..., Visitor], chromium: Chromium) -> Visitor:
    """An administrator of the product with a policy, with a key that somebody else has created."""

    def make() -> Visitor:
        # axe-core is put into the page as a string, which the page's own policy forbids.
        visitor = make_visitor(context="without a policy", bypass_csp=True, is_logged_in=False)
        auth, run = visitor.site.lifetimes_auth, visitor.site.run
        visitor.hand_over(run(auth.sessions.create(visitor.user, ("*", "admin"))))
        run(auth.keys.acting_as("user:bob@example.com").create(visitor.user, "of bob"))
        return visitor

    return chromium.run(make)


def test_the_filter_by_creator_is_accessible_in_all_colors(admin: Visitor) -> None:
    admin.open(f"{AT}#/?owner={admin.user}&creator=user:bob@example.com&status=all")
    chip = admin.page.get_by_role("button", name="Created by bob@example.com: remove this filter")
    expect(admin.row("of bob").locator(".creator")).to_have_text("by bob@example.com")
    expect(chip).to_be_visible()
    assert violations_in_all_colors(admin, ".toolbar") == {}
    assert violations_in_all_colors(admin, ".keys") == {}
    # The browser has dropped the background, so a border must show that this is a button.
    expect(chip).to_have_css("border-top-style", "solid")
    chip.focus()
    admin.page.keyboard.press("Shift+Tab")
    admin.page.keyboard.press("Tab")
    expect(chip).to_be_focused()
    expect(chip).to_have_css("outline-style", "solid")
    admin.page.keyboard.press("Enter")
    expect(chip).to_be_hidden()
    expect(admin.page.get_by_role("searchbox", name="Search by name")).to_be_focused()


def test_the_exemption_is_accessible_in_all_colors(admin: Visitor) -> None:
    admin.open(f"{AT}#/?owner={admin.user}")
    admin.start_new_key("exempt", scope=None)
    box = admin.field("Exempt from the policy for lifetimes")
    expect(box).to_be_visible()
    assert violations_in_all_colors(admin, "dialog[open]") == {}
    box.focus()
    admin.page.keyboard.press("Space")
    expect(box).to_be_checked()
    expect(admin.field("Never")).to_be_visible()
    assert violations_in_all_colors(admin, "dialog[open]") == {}
    # The mark is drawn by the browser, which uses the colors of the system.
    assert box.evaluate("node => getComputedStyle(node).appearance") == "auto"
