"""Accessibility: keyboard, screen readers, contrast, narrow screens. axe-core checks what can be automated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import expect

from tests.dashboard.axe import violations, violations_in_every_look
from tests.dashboard.site import PAGE, ago
from tests.dashboard.visitor import Visitor

MakeVisitor = Callable[..., Visitor]


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (360, "dark")])
def test_axe_finds_nothing_serious_in_any_view_or_dialog(
    make_visitor: MakeVisitor, width: int, color_scheme: str
) -> None:
    # axe-core is put into the page as a string, which the page's own policy forbids.
    visitor = make_visitor(context="without a policy", bypass_csp=True, width=width, color_scheme=color_scheme)
    made = furnish(visitor)
    found = {}
    visitor.open_list()
    expect(visitor.page.locator(".cell-usage .skeleton")).to_have_count(0)
    found["list"] = violations(visitor)
    visitor.press("Create key")
    visitor.press("Create key")
    visitor.dialog.get_by_text("Restrict where it may be used").click()
    visitor.dialog.get_by_text("Manage keys").click()
    found["new key"] = violations(visitor)
    visitor.field("Name").fill("x")
    visitor.field("files:read").check()
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


def test_axe_finds_nothing_serious_in_owners_and_limits(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(context="without a policy", bypass_csp=True)
    auth, run = visitor.site.auth, visitor.site.run
    limits = [{"name": "day", "limit": 100, "per": "day"}, {"name": "burst", "limit": 5, "per": 600}]
    run(auth.owners.set(visitor.user, limits=limits, name="Project X"))
    run(auth.owners.suspend(visitor.user, "Unpaid invoice 17"))
    made = visitor.make_key("worker", limits=limits)
    visitor.open_list()
    expect(visitor.page.locator(".owner-limits .limit")).to_have_count(2)
    assert violations_in_every_look(visitor, ".owner-card") == {}
    visitor.press("Create key")
    visitor.dialog.get_by_text("More limits").click()
    visitor.press("Add a limit")
    visitor.press("Create key")
    expect(visitor.error_at("limits")).to_be_visible()
    assert violations_in_every_look(visitor, "dialog[open]") == {}
    visitor.page.keyboard.press("Escape")
    visitor.press("Discard")
    visitor.open_key(made)
    expect(visitor.page.locator(".limit")).to_have_count(4)
    expect(visitor.page.locator(".owner-card .notice")).to_be_visible()
    assert violations_in_every_look(visitor, ".view") == {}


def test_axe_finds_nothing_serious_in_what_administrators_are_offered(make_visitor: MakeVisitor) -> None:
    admin = make_visitor(context="without a policy", bypass_csp=True, scopes=("*", "admin"))
    made = admin.make_key("worker")
    headers = {"Authorization": f"Bearer {admin.site.run(admin.site.auth.sessions.create('boss', ('admin',)))}"}
    url = f"{admin.site.url}{PAGE}/data/keys/{made.key.id}"
    httpx.patch(url, json={"enabled": False}, headers=headers).raise_for_status()
    admin.open(f"{PAGE}#/?owner={admin.user}")
    expect(admin.row("worker")).to_contain_text("by an administrator")
    assert violations_in_every_look(admin, ".view") == {}
    admin.press("Suspend owner")
    assert violations_in_every_look(admin, "dialog[open]") == {}
    admin.press("Suspend owner")
    expect(admin.page.get_by_role("button", name="Resume owner")).to_be_visible()
    assert violations_in_every_look(admin, ".owner-card") == {}


def furnish(visitor: Visitor) -> str:
    """Create a key in every state. Return the id of the one with the most to see."""
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


def test_everything_can_be_done_without_a_mouse(visitor: Visitor) -> None:
    keyboard = visitor.page.keyboard
    visitor.open_list()
    visitor.page.get_by_role("button", name="Create key").first.focus()
    keyboard.press("Enter")
    expect(visitor.field("Name")).to_be_focused()
    keyboard.type("by keyboard")
    keyboard.press("Enter")
    expect(visitor.field("completions:write")).to_be_focused()
    keyboard.press("Space")
    keyboard.press("Enter")
    assert visitor.shown_token
    expect(visitor.dialog.get_by_role("button", name="Copy key")).to_be_focused()
    keyboard.press("Enter")
    assert visitor.shown_token
    visitor.dialog.get_by_role("button", name="I have saved it").focus()
    keyboard.press("Enter")
    expect(visitor.page.get_by_role("button", name="Create key").first).to_be_focused()
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
    visitor.dialog.get_by_text("More limits").click()
    visitor.press("Add a limit")
    assert overhang() <= 0
    visitor.press("Remove this limit")
    visitor.press("Create key")
    assert visitor.shown_token
    assert overhang() <= 0
    visitor.press("I have saved it")
    visitor.open(f"/settings/api-keys#/keys/{key_id}")
    expect(visitor.page.locator(".chart-canvas svg")).to_be_visible()
    assert overhang() <= 0


CHOSEN = """() => {
    const look = (node) => {
        const style = getComputedStyle(node);
        return [style.backgroundColor, style.color].join();
    };
    const chosen = [...document.querySelectorAll(".choice input:checked + span")].map(look);
    const others = [...document.querySelectorAll(".choice input:not(:checked) + span")].map(look);
    return { chosen, others };
}"""


def test_forced_colors_show_what_is_chosen(make_visitor: MakeVisitor) -> None:
    """axe-core does not check this: the browser drops backgrounds and shadows, and with them the selection."""
    visitor = make_visitor(context="forced colors", bypass_csp=True, forced_colors=True)
    furnish(visitor)
    visitor.open_list()
    expect(visitor.page.locator(".cell-usage .skeleton")).to_have_count(0)
    assert visitor.page.evaluate("matchMedia('(forced-colors: active)').matches")
    visitor.press("Create key")
    found = visitor.page.evaluate(CHOSEN)
    assert len(found["chosen"]) == 3
    assert len(set(found["chosen"])) == 1
    assert not set(found["chosen"]) & set(found["others"])
    assert violations(visitor) == []
    visitor.page.keyboard.press("Escape")
    for name in ("status", "button", "tag"):
        width = visitor.page.locator(f".{name}").first.evaluate("node => getComputedStyle(node).borderTopWidth")
        assert width != "0px", name
    sorted_by = visitor.page.locator(".sort-button.is-sorted")
    expect(sorted_by).to_have_css("text-decoration-line", "underline")
    assert violations(visitor) == []


@pytest.mark.parametrize("width", [640, 360])
def test_a_key_takes_little_height_on_a_narrow_or_enlarged_page(make_visitor: MakeVisitor, width: int) -> None:
    """640 pixels are what a page 1,280 wide has at 200 %."""
    visitor = make_visitor(width=width)
    furnish(visitor)
    visitor.make_key("a name that is as long as names may be, so that it takes several lines".ljust(100, "x"))
    visitor.open_list()
    expect(visitor.page.locator(".cell-usage .skeleton")).to_have_count(0)
    heights = visitor.page.locator("tr[data-key]").evaluate_all("all => all.map((row) => row.offsetHeight)")
    assert max(heights) <= 130, heights


def test_a_long_name_takes_two_lines_and_is_complete_on_the_page_of_its_key(visitor: Visitor) -> None:
    name = "a name that is as long as names may be, so that it takes several lines".ljust(100, "x")
    made = visitor.make_key(name)
    visitor.open_list()
    link = visitor.row(name).get_by_role("link")
    expect(link).to_have_attribute("title", name)
    assert link.evaluate("node => node.offsetHeight / parseFloat(getComputedStyle(node).lineHeight)") <= 2.1
    visitor.open_key(made)
    expect(visitor.heading).to_have_text(name)


@pytest.mark.parametrize("scopes", [("*",), ("*", "admin")])
def test_no_column_is_cut_off_at_any_width(make_visitor: MakeVisitor, scopes: tuple[str, ...]) -> None:
    visitor = make_visitor(scopes=scopes)
    furnish(visitor)
    visitor.make_key("y" * 100, environment="abcdefghijklmnop", expires_at=datetime.now(UTC) + timedelta(days=2))
    visitor.open_list()
    visitor.page.get_by_role("radio", name="All").check()
    expect(visitor.row("revoked").first).to_be_visible()
    expect(visitor.page.locator(".cell-usage .skeleton")).to_have_count(0)
    overhangs = {}
    for width in (1920, 1280, 1221, 1220, 1024, 768, 561, 560, 320):
        visitor.page.set_viewport_size({"width": width, "height": 900})
        overhangs[width] = visitor.page.evaluate(
            """() => Math.max(
                document.documentElement.scrollWidth - innerWidth,
                document.querySelector(".keys").scrollWidth - document.querySelector(".table-card").clientWidth,
            )"""
        )
    assert {width: pixels for width, pixels in overhangs.items() if pixels > 0} == {}
