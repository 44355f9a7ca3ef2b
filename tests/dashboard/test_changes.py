"""Rotate, edit, disable, enable, revoke: from the list and from a key's own page."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import expect

from fastapi_keyauth import TOKEN_PATTERN
from tests.dashboard.site import ago
from tests.dashboard.visitor import Visitor


def test_rotating_shows_the_new_token_and_then_whether_the_old_secret_is_still_in_use(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_key(made)
    visitor.press("Rotate")
    expect(visitor.dialog.locator(".result")).to_contain_text("Both secrets work until")
    visitor.dialog.get_by_role("radio", name="Not at all").check()
    expect(visitor.dialog.locator(".result")).to_contain_text("stops working immediately")
    visitor.dialog.get_by_role("radio", name="3 days").check()
    visitor.press("Rotate key")
    token = visitor.shown_token
    assert token != made.token
    visitor.press("I have saved it")
    secrets = visitor.page.locator(".secrets")
    expect(secrets).to_contain_text("Not used since the rotation.")
    expect(secrets).to_contain_text(re.compile(r"Works until .+, in 3 days\."))
    expect(visitor.page.get_by_text("Rotating", exact=True)).to_be_visible()
    expect(visitor.page.get_by_role("button", name="Rotate")).to_be_focused()
    assert not TOKEN_PATTERN.search(visitor.everything_kept())
    for secret in (made.token, token):
        assert httpx.get(f"{visitor.site.url}/v1/models", headers={"api-key": secret}).status_code == 200
    visitor.page.reload()
    expect(secrets).to_contain_text("Still in use since the rotation")
    expect(secrets.locator("li").first).to_contain_text("Last used just now")


def test_a_rotation_that_is_not_yet_effective_on_all_workers_shows_its_token(visitor: Visitor) -> None:
    """The 503 of a change that could not be announced carries the only copy."""
    made = visitor.make_key("worker")
    visitor.open_list()
    problem = {"code": "temporarily_unavailable", "detail": "Stored.", "holds_within_s": 10, "token": made.token}
    visitor.page.route("**/rotate", lambda route: route.fulfill(status=503, json=problem))
    visitor.choose("worker", "Rotate")
    visitor.press("Rotate key")
    assert visitor.shown_token == made.token
    expect(visitor.dialog).to_contain_text("Stored.")
    visitor.press("I have saved it")
    expect(visitor.dialog).to_have_count(0)
    assert not TOKEN_PATTERN.search(visitor.everything_kept())


def test_editing_sends_what_was_changed_and_shows_it(visitor: Visitor) -> None:
    visitor.make_key("before", scopes=["files:read"], allowed_ips=["203.0.113.7"], expires_at=ago(days=-20))
    visitor.open_list()
    visitor.choose("before", "Edit")
    expect(visitor.field("files:read")).to_be_checked()
    expect(visitor.field("Allowed addressesoptional")).to_have_value("203.0.113.7")
    visitor.field("Name").fill("after")
    visitor.field("files:write").check()
    visitor.dialog.get_by_role("radio", name="Never").check()
    with visitor.page.expect_request(lambda request: request.method == "PATCH") as sent:
        visitor.press("Save changes")
    assert sent.value.post_data_json == {"name": "after", "scopes": ["files:read", "files:write"], "expires_at": None}
    expect(visitor.row("after")).to_contain_text("files:write")
    expect(visitor.page.get_by_role("button", name="Actions for after")).to_be_focused()
    visitor.choose("after", "Edit")
    visitor.field("Requests per houroptional").fill("5000")
    visitor.press("Save changes")
    expect(visitor.error_at("hourly_limit")).to_have_text("The maximum is 1,000.")


def test_metadata_is_edited_as_json_and_only_sent_when_it_was_changed(visitor: Visitor) -> None:
    made = visitor.make_key("worker", metadata={"team": "search"})
    visitor.open_key(made)
    visitor.press("Edit")
    notes = visitor.field("Metadataoptional")
    expect(notes).to_have_value('{\n  "team": "search"\n}')
    for wrong in ("[1]", "{", "null"):
        notes.fill(wrong)
        visitor.press("Save changes")
        expect(visitor.error_at("metadata")).to_contain_text("Enter a JSON object")
    notes.fill('{"team": "ops", "on_call": true}')
    expect(visitor.error_at("metadata")).to_have_count(0)
    with visitor.page.expect_request(lambda request: request.method == "PATCH") as sent:
        visitor.press("Save changes")
    assert sent.value.post_data_json == {"metadata": {"team": "ops", "on_call": True}}
    expect(visitor.page.locator(".metadata")).to_contain_text('"on_call": true')
    visitor.press("Edit")
    visitor.field("Metadataoptional").fill("")
    visitor.press("Save changes")
    expect(visitor.page.locator(".metadata")).to_have_count(0)


def test_disabling_asks_and_enabling_does_not(visitor: Visitor) -> None:
    visitor.make_key("worker")
    visitor.open_list()
    visitor.choose("worker", "Disable")
    expect(visitor.dialog).to_contain_text("worker")
    visitor.press("Disable key")
    expect(visitor.row("worker").locator(".status")).to_have_text("Disabled")
    expect(visitor.page.get_by_role("button", name="Actions for worker")).to_be_focused()
    visitor.choose("worker", "Enable")
    expect(visitor.row("worker").locator(".status")).to_have_text("Active")


def test_revoking_names_the_key_and_its_last_use_before_it_is_done(visitor: Visitor) -> None:
    made = visitor.make_key("web shop")
    visitor.site.set_times(made.key.id, last_used_at=ago(minutes=3))
    visitor.open_list()
    visitor.choose("web shop", "Revoke")
    for text in ("web shop", made.key.hint, "3 minutes ago", "within the last day"):
        expect(visitor.dialog).to_contain_text(text)
    visitor.press("Cancel")
    expect(visitor.page.get_by_role("button", name="Actions for web shop")).to_be_focused()
    expect(visitor.row("web shop").locator(".status")).to_have_text("Active")
    visitor.choose("web shop", "Revoke")
    visitor.press("Revoke key")
    expect(visitor.row("web shop").locator(".status")).to_have_text("Revoked")
    expect(visitor.page.locator("#messages")).to_contain_text("The key has been revoked.")
    expect(visitor.page.get_by_role("button", name="Actions for web shop")).to_have_count(0)
    refused = httpx.get(f"{visitor.site.url}/v1/models", headers={"api-key": made.token})
    assert refused.json()["code"] == "revoked_api_key"


def test_a_revocation_that_is_not_yet_effective_on_all_workers_says_so(visitor: Visitor) -> None:
    visitor.make_key("worker")
    visitor.open_list()
    problem = {"code": "temporarily_unavailable", "detail": "It holds everywhere in 10 seconds.", "holds_within_s": 10}
    visitor.page.route(
        "**/data/keys/*",
        lambda route: (
            route.fulfill(status=503, json=problem) if route.request.method == "DELETE" else route.continue_()
        ),
    )
    visitor.choose("worker", "Revoke")
    visitor.press("Revoke key")
    expect(visitor.page.locator("#messages")).to_contain_text(
        "The key has been revoked. It holds everywhere in 10 seconds."
    )


def test_a_key_has_a_page_of_its_own(visitor: Visitor) -> None:
    made = visitor.make_key(
        "prod-api", scopes=["files:read"], allowed_origins=["https://app.example"], metadata={"team": "platform"}
    )
    visitor.site.add_usage(made.key.id, {0: (40, 2), 30: (900, 0), 167: (60, 0), 169: (5, 5)})
    visitor.site.run(visitor.site.auth.keys.update(made.key.id, hourly_limit=500))
    visitor.open_list()
    visitor.page.get_by_role("link", name="prod-api").click()
    expect(visitor.heading).to_have_text("prod-api")
    expect(visitor.heading).to_be_focused()
    expect(visitor.page).to_have_title("prod-api · Parrot AI")
    details = visitor.page.locator(".details")
    for text in (made.key.id, "files:read", "by the application", "https://app.example", '"team": "platform"', "Never"):
        expect(details).to_contain_text(text)
    expect(visitor.page.locator(".limit")).to_contain_text("500 requests per hour")
    chart = visitor.page.get_by_role("img", name="Requests per hour in the last 7 days: 1,000 admitted, 2 refused")
    expect(chart).to_be_visible()
    visitor.page.locator(".chart-canvas").hover(position={"x": 50, "y": 100})
    expect(visitor.page.locator(".chart-tip")).to_contain_text("60 admitted")
    visitor.page.get_by_text("Numbers by day").click()
    expect(visitor.page.locator(".by-day tbody tr").first).to_contain_text("40")
    history = visitor.page.locator(".history")
    expect(history.locator("li.event")).to_have_count(2)
    expect(history).to_contain_text(re.compile(r"Requests per hour: none.+500"))
    visitor.page.go_back()
    expect(visitor.row("prod-api")).to_be_visible()


def test_a_change_on_the_page_of_a_key_is_in_its_history_immediately(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.site.run(visitor.site.auth.keys.rotate(made.key.id))
    visitor.open_key(made)
    expect(visitor.page.locator(".secrets")).to_contain_text("Works until")
    visitor.press("Revoke")
    visitor.press("Revoke key")
    event = visitor.page.locator(".event").first
    expect(event).to_contain_text("Revoked just now")
    expect(event).to_contain_text("by you from 127.0.0.1")
    expect(visitor.page.locator(".secrets")).to_be_visible()
    expect(visitor.page.get_by_text("The key is revoked: no secret works.")).to_be_visible()
    expect(visitor.page.get_by_text("Works until")).to_have_count(0)
    expect(visitor.page.locator(".buttons button")).to_have_count(0)
    expect(visitor.heading).to_be_focused()


def test_a_long_history_comes_in_parts(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    for number in range(21):
        visitor.site.run(visitor.site.auth.keys.update(made.key.id, name=f"worker {number}"))
    visitor.open(f"/settings/api-keys#/keys/{made.key.id}")
    expect(visitor.page.locator(".event")).to_have_count(20)
    visitor.press("Show older changes")
    expect(visitor.page.locator(".event")).to_have_count(22)
    expect(visitor.page.get_by_role("button", name="Show older changes")).to_be_hidden()


def test_another_users_key_is_not_found(visitor: Visitor) -> None:
    other = visitor.site.create_key("somebody else")
    visitor.open(f"/settings/api-keys#/keys/{other.key.id}")
    expect(visitor.page.get_by_role("heading", name="Key not found")).to_be_visible()


def test_a_client_over_its_limit_still_uses_the_old_secret(visitor: Visitor) -> None:
    made = visitor.make_key("worker", hourly_limit=1)
    client = {"api-key": made.token}
    assert httpx.get(f"{visitor.site.url}/v1/models", headers=client).status_code == 200
    visitor.open_key(made)
    visitor.press("Rotate")
    visitor.press("Rotate key")
    visitor.press("I have saved it")
    secrets = visitor.page.locator(".secrets")
    expect(secrets).to_contain_text("Not used since the rotation.")
    assert httpx.get(f"{visitor.site.url}/v1/models", headers=client).status_code == 429
    visitor.page.reload()
    expect(secrets).to_contain_text("Still in use since the rotation")
