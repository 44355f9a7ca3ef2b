"""The limits of a key on the page, reasons, and steps after a leak."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from playwright.sync_api import APIResponse, Route, expect

from fastapi_keyauth.domain.limits import Limit
from fastapi_keyauth.domain.principals import KEYS_WRITE
from tests.dashboard.site import PAGE, Site
from tests.dashboard.visitor import Visitor

MakeVisitor = Callable[..., Visitor]


def test_a_key_gets_several_limits_and_shows_what_is_left_of_each(visitor: Visitor, site: Site) -> None:
    visitor.open_list()
    visitor.start_new_key("several limits")
    visitor.field("Requests per houroptional").fill("100")
    visitor.dialog.get_by_text("More limits").click()
    visitor.press("Add a limit")
    visitor.fill_limit(1, Name="per-day", Number="2,000", Per="day", Window="Sliding")
    visitor.press("Add a limit")
    visitor.fill_limit(2, Name="burst", Number="5", Per="seconds…", Seconds="10")
    visitor.press("Create key")
    token = visitor.shown_token
    visitor.press("I have saved it")
    [key] = site.run(site.auth.keys.list(owner_id=visitor.user)).items
    assert [(limit.name, limit.limit, limit.per, limit.algorithm) for limit in key.limits] == [
        ("hour", 100, "hour", "fixed_window"),
        ("per-day", 2000, "day", "sliding_window"),
        ("burst", 5, 10, "fixed_window"),
    ]
    site.run(site.auth.owners.set(visitor.user, limits=[{"name": "all", "limit": 9000, "per": "month"}]))
    assert httpx.get(f"{site.url}/v1/models", headers={"api-key": token}).status_code == 200
    visitor.page.get_by_role("link", name="several limits").click()
    limits = visitor.page.locator(".limit")
    expect(limits).to_have_count(4)
    expect(limits.nth(0)).to_contain_text("100 requests per hour")
    expect(limits.nth(0)).to_contain_text("99 left")
    expect(limits.nth(1)).to_contain_text("1,999 left")
    expect(limits.nth(3)).to_contain_text("8,999 left")
    expect(visitor.page.get_by_role("heading", name="Shared by all keys of the owner")).to_be_visible()
    site.run(site.auth.owners.set(visitor.user, name="Project X"))
    visitor.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(visitor.page.get_by_role("heading", name="Shared by all keys of Project X")).to_be_visible()


def test_limits_are_changed_and_removed_with_a_reason(visitor: Visitor, site: Site) -> None:
    made = visitor.make_key(
        "worker",
        hourly_limit=100,
        limits=[Limit(name="day", limit=900, per="day"), Limit(name="m", limit=9, per="month")],
    )
    visitor.open_key(made)
    visitor.press("Edit")
    visitor.fill_limit(1, Number="800")
    visitor.dialog.get_by_role("group", name="Limit 2").get_by_role("button", name="Remove this limit").click()
    visitor.field("Reasonoptional").fill("Half the traffic")
    visitor.press("Save changes")
    expect(visitor.dialog).to_have_count(0)
    now = site.run(site.auth.keys.get(made.key.id))
    assert [(limit.name, limit.limit) for limit in now.limits] == [("hour", 100), ("day", 800)]
    event = visitor.page.locator(".event").first
    expect(event).to_contain_text("800 requests per day")
    expect(event).to_contain_text("Reason: Half the traffic")


def test_errors_of_a_limit_are_shown_at_the_limits(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key()
    visitor.dialog.get_by_text("More limits").click()
    visitor.press("Add a limit")
    for values, sentence in (
        ({"Name": "Per Day"}, "The name of a limit has 1 to 32 characters"),
        ({"Name": "hour", "Number": "5"}, "The name hour belongs to the requests per hour"),
        ({"Name": "day", "Number": "0"}, "Limit 1, limit: Input should be greater than or equal to 1."),
        ({"Number": "many"}, "Limit 1, limit: Must be a whole number."),
    ):
        visitor.fill_limit(1, **values)
        visitor.press("Create key")
        expect(visitor.error_at("limits")).to_contain_text(sentence)


def test_a_limit_of_another_unit_is_offered_where_units_are_declared(make_visitor: MakeVisitor, site: Site) -> None:
    admin = make_visitor(context="projects", is_logged_in=False)
    admin.hand_over(site.run(site.projects_auth.sessions.create(admin.user, ("*", "admin"))))
    admin.open("/projects" + PAGE)
    admin.start_new_key("counts tokens")
    admin.dialog.get_by_text("More limits").click()
    admin.field("No limit of requests per hour").check()
    admin.press("Add a limit")
    admin.fill_limit(1, Name="tokens", Number="500000", Unit="tokens", Per="day")
    admin.press("Create key")
    assert admin.shown_token
    admin.press("I have saved it")
    [key] = site.run(site.projects_auth.keys.list(owner_id=admin.user)).items
    assert [(limit.unit, limit.limit, limit.per) for limit in key.limits] == [("tokens", 500_000, "day")]


def test_a_reason_is_kept_and_never_contains_a_token(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.open_key(made)
    visitor.press("Revoke")
    visitor.field("Reasonoptional").fill(f"found {made.token} in a log")
    visitor.press("Revoke key")
    expect(visitor.error_at("reason")).to_contain_text("This looks like a key itself")
    visitor.field("Reasonoptional").fill("Not needed any more")
    visitor.press("Revoke key")
    expect(visitor.page.locator(".event").first).to_contain_text("Reason: Not needed any more")
    assert not [url for url in asked if made.token[-20:] in url]
    expect(visitor.dialog).to_have_count(0)


def test_rotating_and_disabling_keep_their_reasons(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_key(made)
    visitor.press("Rotate")
    visitor.field("Reasonoptional").fill("Every quarter")
    visitor.press("Rotate key")
    visitor.press("I have saved it")
    expect(visitor.page.locator(".event").first).to_contain_text("Reason: Every quarter")
    visitor.press("Disable")
    visitor.field("Reasonoptional").fill("Maintenance")
    visitor.press("Disable key")
    expect(visitor.page.locator(".event").first).to_contain_text("Reason: Maintenance")


def test_after_a_leak_the_keys_that_the_key_created_are_offered_for_revocation(visitor: Visitor, site: Site) -> None:
    leaked = visitor.make_key("leaked", scopes=["files:read", KEYS_WRITE])
    visitor.make_key("other")
    data = f"{site.url}{PAGE}/data/keys"
    body = {"name": "child", "scopes": ["files:read"]}
    child = httpx.post(data, json=body, headers={"api-key": leaked.token})
    assert child.status_code == 201, child.text
    visitor.open_list()
    visitor.choose("leaked", "Revoke")
    visitor.field("Reasonoptional").fill("Leaked in a public repository")
    visitor.press("Revoke key")
    expect(visitor.dialog).to_have_accessible_name("Revoke the keys that it created?")
    expect(visitor.dialog.locator(".created-keys")).to_contain_text("child")
    expect(visitor.dialog.locator(".created-keys li")).to_have_count(1)
    visitor.press("Revoke 1 key")
    expect(visitor.dialog).to_have_count(0)
    expect(visitor.row("child").locator(".status")).to_have_text("Revoked")
    statuses = {key.name: key.status for key in site.run(site.auth.keys.list(owner_id=visitor.user)).items}
    assert statuses == {"leaked": "revoked", "child": "revoked", "other": "active"}


def test_a_key_that_an_administrator_disabled_has_no_button_that_enables_it(
    visitor: Visitor, make_visitor: MakeVisitor, site: Site
) -> None:
    made = visitor.make_key("worker")
    admin = make_visitor(scopes=("*", "admin"))
    admin.open_key(made)
    admin.press("Disable")
    expect(admin.dialog).to_contain_text("Its owner cannot enable it.")
    admin.press("Disable key")
    expect(admin.page.locator(".under .badges")).to_have_text("Disabledby an administrator")
    visitor.open_key(made)
    expect(visitor.page.locator(".under .badges")).to_have_text("Disabledby an administrator")
    expect(visitor.page.get_by_role("button", name="Edit")).to_be_visible()
    expect(visitor.page.get_by_role("button", name="Enable")).to_have_count(0)
    visitor.page.get_by_role("link", name="API keys").first.click()
    expect(visitor.row("worker").locator(".badges").last).to_have_text("Disabledby an administrator")
    admin.press("Enable")
    expect(admin.page.locator(".under .badges")).to_have_text("Active")


def test_a_key_that_an_administrator_disables_meanwhile_cannot_be_enabled(visitor: Visitor, site: Site) -> None:
    made = visitor.make_key("worker")
    site.run(site.auth.keys.update(made.key.id, enabled=False))
    visitor.open_key(made)
    admin = site.run(site.auth.sessions.create("boss", ("admin",)))
    url = f"{site.url}{PAGE}/data/keys/{made.key.id}"
    httpx.patch(url, json={"enabled": False}, headers={"Authorization": f"Bearer {admin}"}).raise_for_status()
    visitor.press("Enable")
    expect(visitor.page.locator("#messages")).to_contain_text("Only an administrator can enable it.")


def test_a_form_that_is_saved_after_a_step_back_changes_the_list(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_list()
    visitor.page.get_by_role("link", name="worker").click()
    expect(visitor.heading).to_have_text(made.key.name)
    visitor.press("Edit")
    visitor.field("Name").fill("renamed")
    visitor.page.go_back()
    expect(visitor.page.get_by_label("Search by name, ID or hint")).to_be_attached()
    visitor.press("Save changes")
    expect(visitor.page.locator(".key-name")).to_have_text(["renamed"])


def test_a_form_that_is_saved_while_the_list_is_loaded_changes_the_list(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_key(made)
    visitor.press("Edit")
    visitor.field("Name").fill("renamed")
    held: list[tuple[Route, APIResponse]] = []
    visitor.page.route("**/data/keys?*", lambda route: held.append((route, route.fetch())))
    visitor.page.evaluate("location.hash = '#/'")
    while not held:  # Playwright calls the function above meanwhile
        visitor.page.evaluate("0")
    visitor.press("Save changes")
    expect(visitor.dialog).to_have_count(0)
    [(route, response)] = held
    route.fulfill(response=response)
    expect(visitor.page.locator(".key-name")).to_have_text(["renamed"])


def test_a_key_that_is_created_after_a_step_back_is_in_the_list(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_key(made)
    visitor.page.get_by_role("link", name="API keys").first.click()
    expect(visitor.row("worker")).to_be_visible()
    visitor.start_new_key("fresh")
    visitor.page.go_back()
    expect(visitor.heading).to_have_text("worker")
    visitor.page.go_forward()
    expect(visitor.row("worker")).to_be_attached()
    visitor.press("Create key")
    assert visitor.shown_token
    visitor.press("I have saved it")
    expect(visitor.page.locator(".key-name")).to_have_text(["fresh", "worker"])
