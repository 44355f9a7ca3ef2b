"""The policy for lifetimes on the page: in the form of a key, in the audit, and for administrators."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from tests.dashboard.site import PAGE
from tests.dashboard.visitor import Visitor

AT = "/lifetimes" + PAGE


def expiry_choices(visitor: Visitor) -> list[str]:
    labels: list[str] = visitor.dialog.locator("[data-field=expires_at] .choice:visible").all_inner_texts()
    return labels


def test_a_new_key_ends_when_the_policy_says_unless_an_administrator_exempts_it(
    make_visitor: Callable[..., Visitor],
) -> None:
    admin = make_visitor(context="lifetimes", is_logged_in=False)
    auth, run = admin.site.lifetimes_auth, admin.site.run
    admin.hand_over(run(auth.sessions.create(admin.user, ("*", "admin"))))
    admin.open(f"{AT}#/?owner={admin.user}")
    admin.start_new_key("bound")
    assert expiry_choices(admin) == ["7 days", "30 days", "45 days", "Custom date"]
    expect(admin.field("45 days")).to_be_checked()
    admin.field("Custom date").check()
    late = datetime.now(UTC) + timedelta(days=60)
    admin.field("Custom date and time").fill(late.strftime("%Y-%m-%dT%H:%M"))
    admin.press("Create key")
    expect(admin.error_at("expires_at")).to_contain_text("The maximum is 45 days")
    admin.field("45 days").check()
    admin.press("Create key")
    assert admin.shown_token
    admin.press("I have saved it")

    admin.start_new_key("exempt")
    admin.field("Exempt from the policy for lifetimes").check()
    assert expiry_choices(admin) == ["7 days", "30 days", "45 days", "90 days", "1 year", "Never", "Custom date"]
    admin.field("Never").check()
    admin.field("Exempt from the policy for lifetimes").uncheck()
    expect(admin.field("45 days")).to_be_checked()
    admin.field("Exempt from the policy for lifetimes").check()
    admin.field("Never").check()
    admin.press("Create key")
    assert admin.shown_token
    admin.press("I have saved it")
    found = {key.name: key for key in run(auth.keys.list(owner_id=admin.user))}
    assert (found["exempt"].expires_at, found["exempt"].exempt_from_policy) == (None, True)
    ends_at = found["bound"].expires_at
    assert ends_at is not None
    assert timedelta(days=44) < ends_at - found["bound"].created_at <= timedelta(days=45)

    admin.page.get_by_role("link", name="Audit").click()
    policy = admin.page.locator(".policy")
    for words in ("Maximum lifetime", "45 days", "Disabled after 120 days without use", "1 key"):
        expect(policy).to_contain_text(words)
    admin.page.get_by_role("link", name=re.compile("Exempt from the policy for lifetimes")).click()
    finding = admin.page.locator(".finding")
    expect(finding.locator(".key-name")).to_have_text(["exempt"])
    admin.choose("exempt", "Edit")
    admin.field("Exempt from the policy for lifetimes").uncheck()
    admin.press("Save changes")
    expect(admin.page.get_by_text("No active key has this finding.")).to_be_visible()
    admin.open(f"{AT}#/keys/{found['exempt'].id}")
    expect(admin.page.locator(".history")).to_contain_text("Exempt from the policy for lifetimes: yes")


def test_users_are_offered_no_exemption_and_a_refused_date_is_explained(make_visitor: Callable[..., Visitor]) -> None:
    visitor = make_visitor(context="lifetimes", is_logged_in=False)
    auth, run = visitor.site.lifetimes_auth, visitor.site.run
    visitor.hand_over(run(auth.sessions.create(visitor.user)))
    made = run(auth.keys.create(visitor.user, "worker"))
    visitor.open(f"{AT}#/keys/{made.key.id}")
    visitor.press("Edit")
    expect(visitor.field("Exempt from the policy for lifetimes")).to_have_count(0)
    visitor.field("1 year").check()
    visitor.press("Save changes")
    expect(visitor.error_at("expires_at")).to_have_text("The maximum is 45 days after its creation.")
