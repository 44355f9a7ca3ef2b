"""Creators on the page: who created a key, and what else they created."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit

from playwright.sync_api import expect

from fastapi_keyauth.domain.principals import KEYS_READ
from tests.dashboard.site import PAGE
from tests.dashboard.visitor import Visitor


def test_a_creator_is_named_and_leads_to_all_keys_of_theirs(make_visitor: Callable[..., Visitor]) -> None:
    member = make_visitor(context="projects", is_logged_in=False)
    auth, run = member.site.projects_auth, member.site.run
    project = f"project of {member.user}"
    member.site.members[member.user] = {project: [KEYS_READ]}
    member.hand_over(run(auth.sessions.create(member.user)))
    run(auth.keys.create(project, "by code"))
    bob = auth.keys.acting_as("user:bob@example.com")
    first, gone = (run(bob.create(project, name)) for name in ("of bob", "revoked"))
    run(bob.revoke(gone.key.id))
    run(auth.keys.acting_as(f"user:{member.user}").create(project, "mine"))

    member.open("/projects" + PAGE)
    expect(member.page.locator(".cell-created .creator")).to_have_text(
        ["by you", "by bob@example.com", "by the application"]
    )
    expect(member.page.locator(".lead")).to_have_text("You may see these keys, but not create or change any.")
    member.page.get_by_role("link", name="of bob").click()
    expect(member.heading).to_have_text("of bob")
    member.page.get_by_role("link", name="bob@example.com").click()
    shown = member.page.locator(".key-name")
    expect(shown).to_have_text(["revoked", "of bob"])
    fragment = urlsplit(member.page.url).fragment
    assert f"creator={quote('user:bob@example.com', safe='')}" in fragment
    member.page.reload()
    expect(shown).to_have_text(["revoked", "of bob"])
    member.page.get_by_role("button", name="Created by bob@example.com: remove this filter").click()
    expect(shown).to_have_text(["mine", "revoked", "of bob", "by code"])
    expect(member.page.get_by_role("searchbox")).to_be_focused()
    assert first.key.created_by == "user:bob@example.com"
