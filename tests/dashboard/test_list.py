"""The table of keys: what it shows, its search, and its speed with a thousand rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from playwright.sync_api import Request, expect
from sqlalchemy import event

from tests.dashboard.site import Site, ago
from tests.dashboard.visitor import Visitor


def test_an_empty_list_explains_what_keys_are_for_and_offers_one(visitor: Visitor) -> None:
    visitor.open_list()
    expect(visitor.page.get_by_role("heading", name="No keys yet")).to_be_visible()
    expect(visitor.page.locator(".nothing")).to_contain_text("one for each program")
    expect(visitor.page.get_by_role("search")).to_be_hidden()
    visitor.press("Create key")
    expect(visitor.field("Name")).to_be_focused()


def test_a_row_shows_its_key(visitor: Visitor) -> None:
    made = visitor.make_key(
        "prod-api", environment="prod", scopes=["completions:write", "files:read", "files:write"], hourly_limit=200
    )
    used = ago(minutes=3, seconds=20)
    visitor.site.set_times(made.key.id, created_at=ago(days=40), last_used_at=used)
    visitor.site.add_usage(made.key.id, {0: (12, 0), 2: (150, 30)})
    visitor.open_list()
    row = visitor.row("prod-api")
    expect(row).to_contain_text(made.key.hint)
    for text in ("prod", "completions:write", "files:read", "+1", "Active", "1 month ago", "3 minutes ago", "Never"):
        expect(row.get_by_text(text, exact=True)).to_be_visible()
    exact = row.get_by_text("3 minutes ago").get_attribute("title") or ""
    assert re.fullmatch(r"\d+ \w{3,4} \d{4}, \d\d:\d\d (CET|CEST|GMT\+[12])", exact), exact
    picture = row.get_by_role("img")
    label = "162 requests in 24 hours, busiest hour 150 of 200, 30 refused"
    expect(picture).to_have_accessible_name(label)
    expect(row.locator(".usage-words")).to_have_text("162 · peak 75%")


def test_times_are_updated_while_the_page_is_open(make_visitor: Callable[..., Visitor]) -> None:
    visitor = make_visitor(context="with a clock")
    visitor.page.clock.install()
    made = visitor.make_key("worker")
    visitor.site.set_times(made.key.id, last_used_at=datetime.now(UTC) - timedelta(minutes=3, seconds=5))
    visitor.open_list()
    expect(visitor.row("worker").get_by_text("3 minutes ago")).to_be_visible()
    visitor.page.clock.fast_forward("02:00")
    expect(visitor.row("worker").get_by_text("5 minutes ago")).to_be_visible()


def test_an_expiry_is_marked_when_it_is_under_seven_days_away(visitor: Visitor) -> None:
    now = datetime.now(UTC)
    visitor.make_key("far", expires_at=now + timedelta(days=7, minutes=5))
    visitor.make_key("near", expires_at=now + timedelta(days=7, minutes=-5))
    over = visitor.make_key("over")
    visitor.site.set_times(over.key.id, expires_at=ago(days=2))
    visitor.open_list()
    expect(visitor.row("near").locator(".expiry-soon")).to_have_text("Expires in 7 days")
    expect(visitor.row("over").locator(".expiry-over")).to_have_text("Expired 2 days ago")
    expect(visitor.row("far").locator(".expiry")).to_have_count(0)


def test_keys_are_found_by_status_by_name_and_by_long_disuse(visitor: Visitor) -> None:
    for name in ("prod-api", "prod-worker", "old one"):
        visitor.make_key(name)
    off, gone, old = visitor.make_key("off"), visitor.make_key("gone"), visitor.make_key("older one")
    visitor.site.run(visitor.site.auth.keys.update(off.key.id, enabled=False))
    visitor.site.run(visitor.site.auth.keys.revoke(gone.key.id))
    visitor.site.set_times(old.key.id, created_at=ago(days=91))
    visitor.open_list()
    shown = visitor.page.locator(".key-name")
    expect(shown).to_have_text(["off", "old one", "prod-worker", "prod-api", "older one"])
    for status, name in (("Disabled", "off"), ("Revoked", "gone")):
        visitor.page.get_by_role("radio", name=status).check()
        expect(shown).to_have_text([name])
    visitor.page.get_by_role("radio", name="All").check()
    expect(shown).to_have_count(6)
    visitor.page.get_by_role("searchbox").fill("PROD")
    expect(shown).to_have_text(["prod-worker", "prod-api"])
    visitor.page.get_by_label("Unused for 90 days").check()
    expect(visitor.page.get_by_role("heading", name="No key matches")).to_be_visible()
    visitor.page.get_by_role("searchbox").fill("")
    expect(shown).to_have_text(["older one"])
    visitor.page.get_by_role("searchbox").fill("no such name")
    visitor.press("Clear the filters")
    expect(shown).to_have_count(5)


def test_a_thousand_keys_are_shown_page_by_page_with_one_request_for_their_usage(
    make_visitor: Callable[..., Visitor], site: Site
) -> None:
    visitor = make_visitor()
    site.copy_key(visitor.make_key("key 0000"), 999)
    asked: list[str] = []
    statements: list[str] = []

    def note_request(request: Request) -> None:
        if "/data/" in request.url:
            asked.append(request.url.partition("/data/")[2].partition("?")[0])

    def note_statement(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    visitor.page.on("request", note_request)
    engine = site.auth._parts.database._engine
    assert engine is not None
    event.listen(engine.sync_engine, "before_cursor_execute", note_statement)
    try:
        visitor.open_list()
        expect(visitor.page.locator(".cell-usage .muted")).to_have_count(50)
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note_statement)
    assert sorted(asked) == ["keys", f"keys/owners/{quote(visitor.user)}", "options", "usage"]
    assert len([text for text in statements if "keyauth_usage" in text]) == 1
    assert len([text for text in statements if "FROM keyauth_secrets" in text]) == 1
    expect(visitor.page.get_by_text("50 keys so far")).to_be_visible()
    visitor.page.get_by_role("button", name="Load more").click()
    expect(visitor.page.locator("tr[data-key]")).to_have_count(150)
    visitor.page.get_by_role("searchbox").fill("key 0007")
    expect(visitor.page.locator(".key-name")).to_have_text(["key 0007"])


def test_an_administrator_sees_whose_key_it_is(make_visitor: Callable[..., Visitor], site: Site) -> None:
    site.create_key("somebody else", "not mine")
    admin = make_visitor(scopes=("*", "admin"))
    admin.open_list()
    expect(admin.row("not mine").first).to_contain_text("somebody else")


def test_a_failure_to_load_is_shown_and_can_be_retried(visitor: Visitor) -> None:
    visitor.make_key("here after all")
    visitor.page.route(
        "**/data/keys?*", lambda route: route.fulfill(status=503, json={"detail": "Try again in a second."})
    )
    visitor.open()
    expect(visitor.page.get_by_text("Try again in a second.")).to_be_visible()
    visitor.page.unroute("**/data/keys?*")
    visitor.press("Try again")
    expect(visitor.row("here after all")).to_be_visible()
