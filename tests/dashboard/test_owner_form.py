"""The form of an owner: administrators set its name and the limits that all its keys share."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Route, expect

from fastapi_keyauth import Limit
from tests.dashboard.axe import violations, violations_in_every_look
from tests.dashboard.chromium import Chromium
from tests.dashboard.site import PAGE, Site
from tests.dashboard.visitor import Visitor

MakeVisitor = Callable[..., Visitor]


@pytest.fixture
def admin(make_visitor: MakeVisitor, chromium: Chromium) -> Visitor:
    """An administrator."""
    return chromium.run(lambda: make_visitor(scopes=("*", "admin")))


def open_form(admin: Visitor, owner: str) -> None:
    """Open the form of an owner from the list of its keys."""
    admin.open(f"{PAGE}#/?owner={owner}")
    admin.press("Edit owner")
    expect(admin.dialog).to_have_accessible_name("Edit owner")


def test_an_administrator_sets_the_name_and_the_limits_of_an_owner(admin: Visitor, site: Site) -> None:
    owner = f"owner of {admin.user}"
    limits = [
        Limit(name="day", limit=900, per="day", algorithm="sliding_window"),
        Limit(name="m", limit=9, per="month"),
    ]
    site.run(site.auth.owners.set(owner, limits=limits))
    open_form(admin, owner)
    row = admin.dialog.get_by_role("group", name="Limit 1")
    expect(row.get_by_label("Window", exact=True)).to_have_value("sliding_window")
    expect(admin.field("Nameoptional")).to_be_focused()
    admin.field("Nameoptional").fill("Project X")
    admin.fill_limit(1, Number="800")
    admin.dialog.get_by_role("group", name="Limit 2").get_by_role("button", name="Remove this limit").click()
    admin.press("Add a limit")
    admin.fill_limit(2, Name="burst", Number="50", Per="seconds…", Seconds="10")
    admin.press("Save changes")
    expect(admin.dialog).to_have_count(0)
    card = admin.page.locator(".owner-limits")
    expect(card.get_by_role("heading")).to_have_text("Rate limits of Project X")
    expect(card.locator(".limit .strong")).to_have_text(["800 requests per day", "50 requests every 10 seconds"])
    expect(admin.page.get_by_role("button", name="Edit owner")).to_be_focused()
    now = site.run(site.auth.owners.get(owner))
    assert now.name == "Project X"
    assert [(limit.name, limit.limit, limit.per, limit.algorithm) for limit in now.limits] == [
        ("day", 800, "day", "sliding_window"),
        ("burst", 50, 10, "fixed_window"),
    ]


def test_only_what_was_changed_is_sent(admin: Visitor, site: Site) -> None:
    owner = f"owner of {admin.user}"
    site.run(site.auth.owners.set(owner, name="Before", limits=[Limit(name="day", limit=900, per="day")]))
    sent: list[object] = []
    admin.page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "PUT" else None)
    open_form(admin, owner)
    admin.press("Save changes")
    expect(admin.dialog).to_have_count(0)
    admin.press("Edit owner")
    admin.field("Nameoptional").fill("")
    admin.field("Reasonoptional").fill("No name any more")
    admin.press("Save changes")
    expect(admin.dialog).to_have_count(0)
    admin.press("Edit owner")
    admin.press("Remove this limit")
    admin.press("Save changes")
    expect(admin.page.locator(".owner-limits")).to_contain_text("There is no limit of all its keys together.")
    assert sent == [{"name": None, "reason": "No name any more"}, {"limits": []}]


def test_the_defaults_can_be_restored(admin: Visitor, site: Site) -> None:
    admin.hand_over(site.run(site.lifetimes_auth.sessions.create(admin.user, ("*", "admin"))))
    owner = f"owner of {admin.user}"
    auth = site.lifetimes_auth
    site.run(auth.owners.set(owner, limits=[Limit(name="mine", limit=1, per="day")]))
    sent: list[object] = []
    admin.page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "PUT" else None)
    admin.open(f"/lifetimes{PAGE}#/?owner={owner}")
    admin.press("Edit owner")
    admin.press("Use the defaults")
    names = admin.dialog.get_by_role("group", name="Limit").get_by_label("Name", exact=True)
    expect(names).to_have_count(1)
    expect(names).to_have_value("year")
    expect(names).to_be_focused()
    admin.press("Save changes")
    expect(admin.page.locator(".owner-limits .limit")).to_contain_text("1,000,000 requests every 31,536,000 seconds")
    assert sent == [{"limits": None}]


def test_refusals_are_shown_at_their_fields(admin: Visitor, site: Site) -> None:
    owner = f"owner of {admin.user}"
    made = site.create_key(owner, "of the owner")
    open_form(admin, owner)
    admin.field("Nameoptional").fill(made.token)
    admin.press("Save changes")
    expect(admin.error_at("name")).to_contain_text("This looks like a key itself")
    admin.field("Nameoptional").fill("Project X")
    admin.press("Add a limit")
    for values, sentence in (
        ({"Name": "Per Day"}, "The name of a limit has 1 to 32 characters"),
        ({"Name": "day", "Number": "0"}, "Limit 1, limit: Input should be greater than or equal to 1."),
        ({"Number": "many"}, "Limit 1, limit: Must be a whole number."),
    ):
        admin.fill_limit(1, **values)
        admin.press("Save changes")
        expect(admin.error_at("limits")).to_contain_text(sentence)
    admin.field("Reasonoptional").fill(f"found {made.token}")
    admin.press("Save changes")
    expect(admin.error_at("reason")).to_contain_text("This looks like a key itself")
    assert site.run(site.auth.owners.get(owner)).name is None


def test_a_refusal_for_lack_of_admin_is_shown_above_the_form(admin: Visitor, site: Site) -> None:
    owner = f"owner of {admin.user}"
    open_form(admin, owner)
    admin.field("Nameoptional").fill("Project X")
    # The session is replaced by one of the same user without the scope.
    admin.hand_over(site.run(site.auth.sessions.create(admin.user, ("*",))))
    admin.press("Save changes")
    expect(admin.dialog.locator("[role=alert]").first).to_contain_text("admin")
    expect(admin.dialog.locator(".error:visible")).to_have_count(0)
    assert site.run(site.auth.owners.get(owner)).name is None


def test_a_change_that_is_only_stored_is_said_and_shown(admin: Visitor, site: Site) -> None:
    owner = f"owner of {admin.user}"
    open_form(admin, owner)

    def answer(route: Route) -> None:
        if route.request.method != "PUT":
            route.continue_()
            return
        route.fetch()
        detail = "The change is stored, but not all workers know it yet."
        body = {"code": "temporarily_unavailable", "detail": detail, "holds_within_s": 3}
        route.fulfill(status=503, json=body)

    admin.page.route("**/data/keys/owners/**", answer)
    admin.field("Nameoptional").fill("Project X")
    admin.press("Save changes")
    expect(admin.page.locator("#messages")).to_contain_text("The owner has been updated. The change is stored, but")
    expect(admin.page.locator(".owner-limits h2")).to_have_text("Rate limits of Project X")


def test_the_open_form_is_in_the_address(admin: Visitor, site: Site) -> None:
    owner = f"owner of {admin.user}"
    open_form(admin, owner)
    expect(admin.page).to_have_url(f"{site.url}{PAGE}#/?{urlencode({'owner': owner, 'edit': '1'})}")
    admin.page.reload()
    expect(admin.dialog).to_have_accessible_name("Edit owner")
    expect(admin.field("Nameoptional")).to_be_focused()
    admin.press("Cancel")
    expect(admin.page.get_by_role("button", name="Edit owner")).to_be_focused()
    expect(admin.page).to_have_url(f"{site.url}{PAGE}#/?{urlencode({'owner': owner})}")


def test_a_form_that_was_filled_in_survives_a_login_and_is_not_opened_twice(admin: Visitor, site: Site) -> None:
    owner = f"owner of {admin.user}"
    open_form(admin, owner)
    admin.field("Nameoptional").fill("Project X")
    site.run(site.auth.sessions.revoke_all(admin.user))
    admin.press("Save changes")
    expect(admin.heading).to_have_text("Log in")
    fresh = site.run(site.auth.sessions.create(admin.user, ("*", "admin")))
    admin.page.evaluate(
        "token => new BroadcastChannel(`keyauth keyauth.session ${new URL('api-keys/data/', document.baseURI)}`)"
        ".postMessage({ kind: 'session', value: token })",
        fresh,
    )
    expect(admin.field("Nameoptional")).to_have_value("Project X")
    expect(admin.page.locator(".owner-limits")).to_be_attached()
    expect(admin.page.locator("dialog")).to_have_count(1)
    admin.press("Save changes")
    expect(admin.page.locator(".owner-limits h2")).to_have_text("Rate limits of Project X")
    expect(admin.page).to_have_url(f"{site.url}{PAGE}#/?{urlencode({'owner': owner})}")


def test_nobody_else_is_offered_the_form(visitor: Visitor, site: Site) -> None:
    site.run(site.auth.owners.set(visitor.user, limits=[Limit(name="day", limit=7, per="day")]))
    visitor.make_key("worker")
    visitor.open(f"{PAGE}#/?owner={visitor.user}&edit=1")
    expect(visitor.page.locator(".owner-limits .limit")).to_be_visible()
    expect(visitor.page.get_by_role("button", name="Edit owner")).to_have_count(0)
    expect(visitor.page.locator("dialog")).to_have_count(0)
    expect(visitor.page).to_have_url(f"{site.url}{PAGE}#/")


def test_the_page_of_a_key_shows_limits_that_were_set_in_another_tab(admin: Visitor, site: Site) -> None:
    owner = f"owner of {admin.user}"
    made = site.create_key(owner, "of the owner")
    open_form(admin, owner)
    admin.press("Add a limit")
    admin.fill_limit(1, Name="day", Number="70")
    admin.page.evaluate(f"location.hash = '#/keys/{made.key.id}'")
    expect(admin.heading).to_have_text("of the owner")
    admin.press("Save changes")
    expect(admin.page.locator(".limit").last).to_contain_text("70 requests per day")


def test_axe_finds_nothing_serious_in_the_form(make_visitor: MakeVisitor) -> None:
    admin = make_visitor(context="without a policy", bypass_csp=True, scopes=("*", "admin"))
    owner = f"owner of {admin.user}"
    admin.site.run(admin.site.auth.owners.set(owner, name="Project X", limits=[Limit(name="day", limit=7, per="day")]))
    admin.open(f"{PAGE}#/?owner={owner}")
    expect(admin.page.locator(".owner-limits .limit")).to_be_visible()
    assert violations_in_every_look(admin, ".owner-card") == {}
    admin.press("Edit owner")
    admin.press("Add a limit")
    admin.press("Save changes")
    expect(admin.error_at("limits")).to_be_visible()
    assert violations_in_every_look(admin, "dialog[open]") == {}
    body = admin.dialog.locator(".dialog-body")
    assert body.evaluate("node => node.scrollWidth - node.clientWidth") <= 0
    admin.prefer("light", forced_colors=True)
    assert violations(admin, "dialog[open]") == []
