"""Owners on the page: visible keys, what is left of their limits, and permissions."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import expect

from fastapi_keyauth.domain.principals import KEYS_READ, KEYS_WRITE
from tests.dashboard.site import PAGE, Site
from tests.dashboard.visitor import Visitor

MakeVisitor = Callable[..., Visitor]
BOTH = [KEYS_READ, KEYS_WRITE]


@pytest.fixture
def make_member(make_visitor: MakeVisitor, site: Site) -> Callable[..., Visitor]:
    """Makes visitors who act for projects: `make_member({"p": [KEYS_READ]})`."""

    def make(projects: dict[str, list[str]], scopes: tuple[str, ...] = ("*",)) -> Visitor:
        visitor = make_visitor(context="projects", is_logged_in=False)
        # A project's name is the member's own, because tests share the product.
        site.members[visitor.user] = {f"{name} of {visitor.user}": may for name, may in projects.items()}
        visitor.hand_over(site.run(site.projects_auth.sessions.create(visitor.user, scopes)))
        return visitor

    return make


def test_a_user_sees_what_is_left_of_the_limits_of_all_their_keys(visitor: Visitor, site: Site) -> None:
    made = visitor.make_key("worker")
    limits = [{"name": "day", "limit": 1000, "per": "day"}, {"name": "burst", "limit": 50, "per": 10}]
    site.run(site.auth.owners.set(visitor.user, limits=limits, name="Ada's project"))
    for _ in range(3):
        assert httpx.get(f"{site.url}/v1/models", headers={"api-key": made.token}).status_code == 200
    visitor.open_list()
    card = visitor.page.locator(".owner-limits")
    expect(card).to_contain_text("Rate limits of Ada's project")
    expect(card.locator(".limit").first).to_contain_text(re.compile(r"1,000 requests per day.+997 left · resets in"))
    expect(card.locator(".limit").last).to_contain_text("50 requests every 10 seconds")


def test_a_user_without_limits_sees_no_card(visitor: Visitor) -> None:
    visitor.make_key("worker")
    visitor.open_list()
    expect(visitor.row("worker")).to_be_visible()
    expect(visitor.page.locator(".owner-card")).to_be_hidden()


def test_a_suspended_owner_is_named_with_the_reason_in_the_list_and_with_the_key(visitor: Visitor, site: Site) -> None:
    made = visitor.make_key("worker")
    site.run(site.auth.owners.suspend(visitor.user, reason="Unpaid invoice 17"))
    visitor.open_list()
    notice = visitor.page.locator(".owner-card .notice")
    expect(notice).to_contain_text(f"{visitor.user} is suspended. All its keys are refused")
    expect(notice).to_contain_text("Reason: Unpaid invoice 17")
    expect(visitor.row("worker").locator(".status")).to_have_text("Suspended")
    visitor.open_key(made)
    expect(notice).to_contain_text("Unpaid invoice 17")
    expect(visitor.page.locator(".under .status")).to_have_text("Suspended")
    site.run(site.auth.owners.resume(visitor.user))
    visitor.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(notice).to_have_count(0)
    expect(visitor.page.locator(".under .status")).to_have_text("Active")


def test_a_member_switches_between_owners_and_creates_a_key_for_the_chosen_one(
    make_member: Callable[..., Visitor], site: Site
) -> None:
    member = make_member({"a": BOTH, "b": BOTH})
    auth = site.projects_auth
    a, b = site.members[member.user]
    site.run(auth.owners.set(b, name="Project B", limits=[{"name": "m", "limit": 9, "per": "month", "unit": "tokens"}]))
    site.run(auth.keys.create(a, "of a"))
    site.run(auth.keys.create(b, "of b"))
    member.open("/projects" + PAGE)
    expect(member.page.locator(".key-name")).to_have_text(["of a"])
    expect(member.page.locator(".owner-card")).to_be_hidden()
    member.page.get_by_label("Owner", exact=True).select_option("Project B")
    expect(member.page.locator(".key-name")).to_have_text(["of b"])
    expect(member.page.locator(".owner-limits .limit")).to_contain_text("9 tokens per month")
    member.start_new_key("new of b")
    expect(member.dialog).to_contain_text("For the owner Project B")
    member.press("Create key")
    assert member.shown_token
    member.press("I have saved it")
    expect(member.page.locator(".key-name")).to_have_text(["new of b", "of b"])
    assert {key.owner_id for key in site.run(auth.keys.list(owner_id=b)).items} == {b}
    member.page.reload()
    expect(member.page.get_by_label("Owner", exact=True)).to_have_value(b)
    member.page.get_by_role("link", name="new of b").click()
    expect(member.page.locator(".details")).to_contain_text("Project B")
    member.page.go_back()
    member.page.go_back()
    expect(member.page.locator(".key-name")).to_have_text(["of a"])


def test_a_member_who_may_only_read_is_offered_no_changes(make_member: Callable[..., Visitor], site: Site) -> None:
    member = make_member({"a": [KEYS_READ]})
    [project] = site.members[member.user]
    made = site.run(site.projects_auth.keys.create(project, "worker"))
    member.open("/projects" + PAGE)
    expect(member.row("worker")).to_be_visible()
    expect(member.page.get_by_role("button", name="Create key")).to_have_count(0)
    expect(member.page.get_by_role("button", name="Actions for worker")).to_have_count(0)
    member.open(f"/projects{PAGE}#/keys/{made.key.id}")
    expect(member.heading).to_have_text("worker")
    expect(member.page.locator(".view-head .buttons button")).to_have_count(0)


def test_an_owner_in_the_address_that_the_user_does_not_act_for_is_ignored(
    make_member: Callable[..., Visitor], visitor: Visitor, site: Site
) -> None:
    member = make_member({"a": BOTH})
    [project] = site.members[member.user]
    site.run(site.projects_auth.keys.create(project, "of a"))
    member.open(f"/projects{PAGE}#/?owner=somebody")
    expect(member.page.locator(".key-name")).to_have_text(["of a"])
    visitor.make_key("mine")
    visitor.open(f"{PAGE}#/?owner=somebody")
    expect(visitor.page.locator(".key-name")).to_have_text(["mine"])


def test_a_user_who_acts_for_no_owner_sees_an_explanation(make_member: Callable[..., Visitor]) -> None:
    member = make_member({})
    member.open("/projects" + PAGE)
    expect(member.page.get_by_role("heading", name="No owner to act for")).to_be_visible()


def test_an_administrator_sees_the_limits_of_the_chosen_owner(make_visitor: MakeVisitor, site: Site) -> None:
    owner = "owner with limits"
    site.create_key(owner, "shown to the administrator")
    site.run(site.auth.owners.set(owner, limits=[{"name": "day", "limit": 7, "per": "day"}]))
    admin = make_visitor(scopes=("*", "admin"))
    admin.open_list()
    expect(admin.page.locator(".owner-card")).to_be_hidden()
    expect(admin.row("shown to the administrator").locator(".status")).to_have_text("Active")
    site.run(site.auth.owners.suspend(owner))
    admin.page.reload()
    expect(admin.row("shown to the administrator").locator(".status")).to_have_text("Suspended")
    site.run(site.auth.owners.resume(owner))
    columns = admin.page.get_by_role("columnheader")
    shown = ["Key", "Owner", "Scopes", "Status", "Last used", "Expires", "Last 24 hours", "Actions"]
    expect(columns).to_have_text(shown)
    admin.page.get_by_role("link", name=owner).first.click()
    expect(admin.page.locator(".owner-limits .limit")).to_contain_text("7 requests per day")
    expect(admin.page.locator(".lead")).to_contain_text("in the name of its owner")
    shown = ["Key", "Environment", "Scopes", "Status", "Created", "Last used", "Expires", "Last 24 hours", "Actions"]
    expect(columns).to_have_text(shown)
    expect(admin.row("shown to the administrator").locator(".status")).to_have_text("Active")
    admin.start_new_key("by the administrator")
    expect(admin.dialog).to_contain_text(f"For the owner {owner}")
    admin.press("Create key")
    assert admin.shown_token
    admin.press("I have saved it")
    expect(admin.page.locator(".key-name")).to_have_text(["by the administrator", "shown to the administrator"])


def test_an_administrator_sees_the_name_of_the_owner_with_a_key(make_visitor: MakeVisitor, site: Site) -> None:
    owner = "owner with a name"
    made = site.create_key(owner, "of the owner")
    admin = make_visitor(scopes=("*", "admin"))
    admin.open_key(made)
    details = admin.page.locator(".details")
    expect(details.get_by_role("link", name=owner, exact=True)).to_be_visible()
    site.run(site.auth.owners.set(owner, name="Project X"))
    admin.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(details.locator("div", has_text="Owner").locator("dd")).to_have_text(f"Project X{owner}")
    details.get_by_role("link", name="Project X").click()
    expect(admin.page.locator(".key-name")).to_have_text(["of the owner"])


def test_an_administrator_suspends_and_resumes_an_owner(make_visitor: MakeVisitor, site: Site) -> None:
    owner = "owner without limits"
    made = site.create_key(owner, "of the owner")
    admin = make_visitor(scopes=("*", "admin"))
    admin.open(f"{PAGE}#/?owner={owner}")
    card = admin.page.locator(".owner-card")
    expect(card).to_contain_text("There is no limit of all its keys together.")
    admin.press("Suspend owner")
    expect(admin.dialog).to_contain_text("Its 1 active key and keys that are created later are refused")
    admin.field("Reasonoptional").fill(f"found {made.token}")
    admin.press("Suspend owner")
    expect(admin.error_at("reason")).to_contain_text("This looks like a key itself")
    admin.field("Reasonoptional").fill("Unpaid invoice 17")
    admin.press("Suspend owner")
    expect(card.locator(".notice")).to_contain_text("Unpaid invoice 17")
    expect(admin.page.get_by_role("button", name="Resume owner")).to_be_focused()
    headers = {"api-key": made.token}
    assert httpx.get(f"{site.url}/v1/models", headers=headers).json()["code"] == "owner_suspended"
    admin.press("Resume owner")
    expect(admin.page.get_by_role("button", name="Suspend owner")).to_be_focused()
    expect(card.locator(".notice")).to_have_count(0)
    assert httpx.get(f"{site.url}/v1/models", headers=headers).status_code == 200


def test_nobody_else_is_offered_to_suspend_an_owner(visitor: Visitor, site: Site) -> None:
    visitor.make_key("worker")
    site.run(site.auth.owners.set(visitor.user, limits=[{"name": "day", "limit": 7, "per": "day"}]))
    site.run(site.auth.owners.suspend(visitor.user))
    visitor.open_list()
    expect(visitor.page.locator(".owner-card .notice")).to_be_visible()
    expect(visitor.page.locator(".owner-card button")).to_have_count(0)
