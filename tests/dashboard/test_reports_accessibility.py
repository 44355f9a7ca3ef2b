"""Accessibility of the views of usage and of the audit, in few page loads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from tests.dashboard.axe import violations, violations_in_every_look
from tests.dashboard.site import PAGE
from tests.dashboard.visitor import Visitor

OVERHANG = "document.documentElement.scrollWidth - innerWidth"


def test_axe_finds_nothing_serious_and_nothing_sticks_out(make_visitor: Callable[..., Visitor]) -> None:
    visitor = make_visitor(context="without a policy", bypass_csp=True)
    made = visitor.make_key("y" * 100, expires_at=datetime.now(UTC) + timedelta(days=3))
    visitor.site.add_usage(made.key.id, {0: (3, 1), 25: (900_000, 0), 49: (20, 0)})
    today = datetime.now(UTC).date()
    visitor.open(f"{PAGE}#/usage?key={made.key.id}&period=custom&from={today - timedelta(days=40)}&to={today}")
    found = {}

    def look(view: str) -> None:
        found[view] = violations_in_every_look(visitor, "html")
        for width in (1280, 640, 360, 320):
            visitor.page.set_viewport_size({"width": width, "height": 900})
            overhang = visitor.page.evaluate(OVERHANG)
            found[f"{view} {width}"] = {"overhang": [overhang]} if overhang > 0 else {}

    expect(visitor.page.get_by_role("img")).to_be_visible()
    look("usage by day")
    visitor.page.get_by_role("radio", name="Key").check()
    expect(visitor.page.locator(".report a")).to_be_visible()
    look("usage by key")
    visitor.page.get_by_role("link", name="Audit").click()
    expect(visitor.page.locator(".finding")).to_have_count(1)
    look("audit")
    visitor.prefer("light", forced_colors=True)
    found["forced colors"] = {"audit": violations(visitor)} if violations(visitor) else {}
    current = visitor.page.locator(".kinds [aria-current]")
    expect(current).to_have_css("outline-style", "solid")
    assert {view: problems for view, problems in found.items() if problems} == {}
