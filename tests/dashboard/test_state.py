"""State that survives: filters, a form, a token that is shown once, the session of a new tab."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Dialog, Page, expect

from tests.dashboard.site import PAGE, PASSWORD, Site, ago
from tests.dashboard.visitor import Visitor

MakeVisitor = Callable[..., Visitor]


def log_in_again(visitor: Visitor, user: str | None = None) -> None:
    visitor.page.get_by_label("Email").fill(user or visitor.user)
    visitor.page.get_by_label("Password").fill(PASSWORD)
    visitor.page.keyboard.press("Enter")


def test_a_link_that_is_opened_in_a_new_tab_needs_no_login(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(context="with two tabs")
    visitor.make_key("worker")
    visitor.open_list()
    with visitor.page.context.expect_page() as opened:
        visitor.page.get_by_role("link", name="worker").click(modifiers=["ControlOrMeta"])
    tab: Page = opened.value
    expect(tab.locator("h1")).to_have_text("worker")
    tab.reload()
    expect(tab.locator("h1")).to_have_text("worker")
    kept = tab.evaluate("JSON.stringify([{...localStorage}, location.href, document.cookie])")
    assert visitor.page.evaluate("sessionStorage.getItem('keyauth.session')") not in kept
    tab.get_by_role("button", name="Log out").click()
    expect(visitor.heading).to_have_text("Log in")
    assert visitor.page.evaluate("sessionStorage.getItem('keyauth.session')") is None
    tab.close()


def test_a_session_that_has_ended_is_not_handed_on_and_a_new_login_reaches_every_tab(
    make_visitor: MakeVisitor,
) -> None:
    visitor = make_visitor(context="with two tabs")
    visitor.make_key("worker")
    visitor.open_list()
    visitor.site.run(visitor.site.auth.sessions.revoke_all(visitor.user))
    # Not `check`: that then reads the state of the radio button, which may have gone with the list.
    visitor.page.get_by_role("radio", name="Active").click()
    expect(visitor.heading).to_have_text("Log in")
    tab = visitor.page.context.new_page()
    tab.goto(visitor.site.url + PAGE)
    expect(tab.locator("h1")).to_have_text("Log in")
    log_in_again(visitor)
    expect(visitor.heading).to_have_text("API keys")
    expect(tab.locator("h1")).to_have_text("API keys")
    tab.close()


def test_filters_search_and_order_survive_back_and_reload(visitor: Visitor) -> None:
    for name in ("beta", "alpha", "gamma"):
        made = visitor.make_key(f"{name} worker")
        if name != "gamma":
            visitor.site.run(visitor.site.auth.keys.update(made.key.id, enabled=False))
    visitor.make_key("beta server")
    visitor.open_list()
    visitor.page.get_by_role("radio", name="Disabled").check()
    visitor.page.get_by_role("searchbox").fill("worker")
    visitor.page.get_by_role("button", name="Key", exact=True).click()
    shown = visitor.page.locator(".key-name")
    expect(shown).to_have_text(["alpha worker", "beta worker"])
    assert visitor.page.url.endswith("#/?status=disabled&q=worker&sort=name")
    visitor.page.reload()
    expect(shown).to_have_text(["alpha worker", "beta worker"])
    expect(visitor.page.get_by_role("radio", name="Disabled")).to_be_checked()
    expect(visitor.page.get_by_role("searchbox")).to_have_value("worker")
    shown.first.click()
    expect(visitor.heading).to_have_text("alpha worker")
    visitor.page.go_back()
    expect(shown).to_have_text(["alpha worker", "beta worker"])
    shown.first.click()
    visitor.page.locator(".back").click()
    expect(shown).to_have_text(["alpha worker", "beta worker"])
    visitor.page.get_by_role("radio", name="All").check()
    expect(shown).to_have_text(["alpha worker", "beta worker", "gamma worker"])
    visitor.page.go_back()
    expect(shown).to_have_text(["alpha worker", "beta worker"])
    expect(visitor.page.get_by_role("radio", name="Disabled")).to_be_checked()


def test_a_half_filled_form_survives_a_new_login_of_the_same_user_alone(visitor: Visitor) -> None:
    for user in (visitor.user, "somebody-else@example.com"):
        visitor.open_list()
        visitor.start_new_key("half filled")
        visitor.site.run(visitor.site.auth.sessions.revoke_all(visitor.user))
        visitor.press("Create key")
        expect(visitor.page.get_by_text("what you have typed is kept")).to_be_visible()
        expect(visitor.dialog).to_have_count(0)
        log_in_again(visitor, user)
        expect(visitor.heading).to_have_text("API keys")
        if user == visitor.user:
            expect(visitor.field("Name")).to_have_value("half filled")
            expect(visitor.field("files:read")).to_be_checked()
            visitor.press("Create key")
            assert visitor.shown_token
            visitor.press("I have saved it")
        else:
            expect(visitor.page.get_by_role("heading", name="No keys yet")).to_be_visible()
            expect(visitor.dialog).to_have_count(0)


def test_escape_asks_before_it_discards_a_half_filled_form(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key("half filled")
    for close in ("Escape", "Close", "Cancel"):
        if close == "Escape":
            visitor.page.keyboard.press(close)
        else:
            visitor.press(close)
        expect(visitor.dialog.get_by_text("Discard what you have typed?")).to_be_visible()
        expect(visitor.dialog.get_by_role("button", name="Keep editing")).to_be_focused()
        visitor.page.keyboard.press("Escape")
        expect(visitor.field("Name")).to_have_value("half filled")
    visitor.page.keyboard.press("Escape")
    visitor.press("Discard")
    expect(visitor.dialog).to_have_count(0)
    visitor.press("Create key")
    expect(visitor.field("Name")).to_have_value("")
    visitor.page.keyboard.press("Escape")
    expect(visitor.dialog).to_have_count(0)


def test_a_step_back_leaves_a_form_and_a_token_where_they_are(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_key(made)
    visitor.page.locator(".back").click()
    visitor.start_new_key("half filled")
    visitor.page.go_back()
    expect(visitor.heading).to_have_text("worker")
    expect(visitor.field("Name")).to_have_value("half filled")
    visitor.press("Create key")
    token = visitor.shown_token
    visitor.page.go_forward()
    assert visitor.shown_token == token


def test_leaving_the_page_asks_while_a_token_or_a_half_filled_form_is_shown(visitor: Visitor) -> None:
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    visitor.page.on("dialog", stay)
    visitor.open_list()
    visitor.start_new_key("half filled")
    visitor.page.close(run_before_unload=True)
    expect(visitor.field("Name")).to_have_value("half filled")
    visitor.press("Create key")
    token = visitor.shown_token
    visitor.page.close(run_before_unload=True)
    assert visitor.shown_token == token
    assert asked == ["beforeunload", "beforeunload"]
    visitor.press("I have saved it")
    visitor.page.reload()
    expect(visitor.row("half filled")).to_be_visible()
    assert asked == ["beforeunload", "beforeunload"]


def test_an_open_dialog_notices_that_its_key_was_revoked_elsewhere(visitor: Visitor) -> None:
    revoke = visitor.site.auth.keys.revoke
    for action in ("Edit", "Rotate", "Disable", "Revoke"):
        made = visitor.make_key(f"to {action}")
        visitor.open_list()
        visitor.choose(f"to {action}", action)
        visitor.site.run(revoke(made.key.id))
        visitor.page.evaluate("dispatchEvent(new Event('focus'))")
        expect(visitor.dialog.locator(".notice:visible").first).to_contain_text("has been revoked in the meantime")
        expect(visitor.dialog.locator("[type=submit]")).to_be_hidden()
        visitor.press("Cancel")
        expect(visitor.row(f"to {action}").locator(".status")).to_have_text("Revoked")


def test_a_refusal_because_the_key_was_revoked_elsewhere_refreshes_the_dialog(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_list()
    visitor.choose("worker", "Rotate")
    visitor.site.run(visitor.site.auth.keys.revoke(made.key.id))
    visitor.press("Rotate key")
    expect(visitor.dialog.locator(".notice:visible").first).to_contain_text("has been revoked in the meantime")
    visitor.press("Cancel")
    expect(visitor.row("worker").locator(".status")).to_have_text("Revoked")


def test_a_change_in_one_tab_shows_in_the_other(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(context="with two tabs")
    visitor.make_key("worker")
    visitor.open_list()
    tab = visitor.page.context.new_page()
    tab.goto(visitor.site.url + PAGE)
    expect(tab.locator(".status")).to_have_text("Active")
    visitor.choose("worker", "Disable")
    visitor.press("Disable key")
    expect(tab.locator(".status")).to_have_text("Disabled")
    tab.close()


def test_the_standard_form_of_oauth2_logs_in(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(context="logging in", is_logged_in=False)
    visitor.open("/oauth2" + PAGE)
    visitor.press("Log in")
    expect(visitor.page.get_by_text("Enter your username.")).to_be_visible()
    visitor.page.get_by_label("Username or email").fill(visitor.user)
    visitor.page.get_by_label("Password").fill("wrong")
    visitor.press("Log in")
    expect(visitor.page.get_by_role("alert")).to_have_text("Incorrect username or password")
    visitor.page.get_by_label("Password").fill(PASSWORD)
    visitor.press("Log in")
    expect(visitor.heading).to_have_text("API keys")
    expect(visitor.page.locator(".user")).to_contain_text(visitor.user)


def test_a_login_that_the_route_cannot_read_is_explained(make_visitor: MakeVisitor) -> None:
    """A page that sends JSON to a route that reads a form, and a route that rejects the input."""
    visitor = make_visitor(context="logging in", is_logged_in=False)
    missing = [{"type": "missing", "loc": ["body", "username"], "msg": "Field required", "input": None}]
    wrong = [{"type": "value_error", "loc": ["body", "email"], "msg": "value is not an email address", "input": "x"}]
    answers = [missing, wrong]
    visitor.page.route("**/login", lambda route: route.fulfill(status=422, json={"detail": answers.pop(0)}))
    visitor.open()
    log_in_again(visitor)
    alert = visitor.page.get_by_role("alert")
    expect(alert).to_contain_text("expects “username”, which the page does not send")
    log_in_again(visitor)
    expect(visitor.page.locator(".error:visible")).to_have_text("Value is not an email address.")


def test_a_thousand_keys_are_reached_with_one_press_and_sorted(make_visitor: MakeVisitor, site: Site) -> None:
    visitor = make_visitor()
    site.copy_key(visitor.make_key("key 0000"), 999)
    visitor.open_list()
    visitor.press("Load all")
    expect(visitor.page.locator("tr[data-key]")).to_have_count(1000)
    expect(visitor.page.get_by_text("1,000 keys", exact=True)).to_be_visible()
    visitor.page.get_by_role("button", name="Key", exact=True).click()
    expect(visitor.page.locator(".key-name").first).to_have_text("key 0000")
    expect(visitor.page.get_by_role("columnheader", name="Key")).to_have_attribute("aria-sort", "ascending")
    visitor.page.get_by_role("button", name="Key", exact=True).click()
    expect(visitor.page.locator(".key-name").first).to_have_text("key 0999")
    visitor.page.mouse.wheel(0, 100_000)
    expect(visitor.page.locator("tr[data-key]").nth(149)).to_be_attached()


def test_sorting_by_last_use_puts_keys_without_one_last(visitor: Visitor) -> None:
    for name, used in (("never", None), ("long ago", ago(days=9)), ("lately", ago(minutes=9))):
        made = visitor.make_key(name)
        visitor.site.set_times(made.key.id, last_used_at=used)
    visitor.open_list()
    shown = visitor.page.locator(".key-name")
    visitor.page.get_by_role("button", name="Last used").click()
    expect(shown).to_have_text(["lately", "long ago", "never"])
    visitor.page.get_by_role("button", name="Last used").click()
    expect(shown).to_have_text(["long ago", "lately", "never"])


def test_an_administrator_filters_by_owner(make_visitor: MakeVisitor, site: Site) -> None:
    site.create_key("owner-a", "of a")
    site.create_key("owner-b", "of b")
    admin = make_visitor(scopes=("*", "admin"))
    admin.open_list()
    expect(admin.page.locator(".user")).to_contain_text(re.compile("Admin"))
    admin.page.get_by_role("link", name="owner-a").first.click()
    expect(admin.page.locator(".key-name")).to_have_text(["of a"])
    expect(admin.page.get_by_label("Owner ID")).to_have_value("owner-a")
    admin.page.get_by_label("Owner ID").fill("owner-b")
    expect(admin.page.locator(".key-name")).to_have_text(["of b"])
