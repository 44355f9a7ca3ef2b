"""The view of the audit: findings about active keys, and when keys end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import get_args
from urllib.parse import urlsplit

from playwright.sync_api import expect

from fastapi_keyauth.domain.audit import UNUSED_DAYS, FindingKind
from tests.dashboard.site import FOLDER, ago
from tests.dashboard.visitor import Visitor


def test_findings_are_counted_and_lead_to_their_keys(visitor: Visitor) -> None:
    run, auth = visitor.site.run, visitor.site.auth
    visitor.make_key("full access")
    visitor.make_key("ends soon", scopes=["files:read"], expires_at=datetime.now(UTC) + timedelta(days=3))
    visitor.make_key("quiet", scopes=["files:read"], allowed_ips=["192.0.2.1"])
    old = visitor.make_key("old", scopes=["files:read"])
    visitor.site.set_times(old.key.id, created_at=ago(days=400), last_used_at=ago(days=100))
    run(auth.keys.revoke(visitor.make_key("gone").key.id))
    visitor.open_list()
    visitor.page.get_by_role("navigation", name="Views").get_by_role("link", name="Audit").click()
    kinds = visitor.page.get_by_role("navigation", name="Findings")
    expect(kinds.get_by_role("link")).to_have_text(
        [
            "All findings 4 keys",
            "Expires within 7 days 1 key",
            "Never expires 3 keys",
            "Unused for 90 days 1 key",
            "Never used 3 keys",
            "Old secret 1 key",
            "Holds all scopes 1 key",
            "Usable from any address 3 keys",
        ]
    )
    found = visitor.page.locator(".finding")
    expect(found.locator(".key-name")).to_have_text(["quiet", "ends soon", "full access", "old"])
    kinds.get_by_role("link", name="Unused for 90 days").click()
    expect(found).to_have_count(1)
    expect(found).to_contain_text("It was not used for 100 days.")
    expect(found).to_contain_text("Expires: Never")
    expect(visitor.page.get_by_text("Revoke the key if no program needs it.")).to_be_visible()
    expect(kinds.get_by_role("link", name="Unused for 90 days")).to_be_focused()
    assert urlsplit(visitor.page.url).fragment == "/audit?finding=unused"
    visitor.page.reload()
    expect(found.locator(".key-name")).to_have_text(["old"])
    visitor.choose("old", "Revoke")
    visitor.press("Revoke key")
    expect(visitor.page.get_by_text("No active key has this finding.")).to_be_visible()
    kinds.get_by_role("link", name="Expires within 7 days").click()
    expect(found.locator(".expiry-soon")).to_have_text("Expires in 3 days")
    found.get_by_role("link", name="ends soon").click()
    expect(visitor.heading).to_have_text("ends soon")
    visitor.page.locator(".back").click()
    expect(found.locator(".key-name")).to_have_text(["ends soon"])


def test_an_unknown_finding_in_the_address_is_ignored(visitor: Visitor) -> None:
    visitor.make_key("full access")
    visitor.open("/settings/api-keys#/audit?finding=constructor")  # which every object of JavaScript has
    expect(visitor.page.locator(".finding .key-name")).to_have_text(["full access"])


def test_without_keys_the_audit_says_so(visitor: Visitor) -> None:
    visitor.open("/settings/api-keys#/audit")
    expect(visitor.page.get_by_role("heading", name="No active keys")).to_be_visible()
    expect(visitor.page.get_by_text("Keys have no maximum lifetime here")).to_be_visible()


def test_the_page_has_words_for_every_finding() -> None:
    source = (FOLDER / "reports" / "findings.js").read_text("utf-8")
    assert set(re.findall(r"^  (\w+): \[", source, re.MULTILINE)) == {*get_args(FindingKind), "expires_soon", "exempt"}
    assert f"Unused for {UNUSED_DAYS} days" in source
