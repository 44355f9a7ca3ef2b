"""The dialog for a new key, and the single time that its token is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
from playwright.sync_api import expect

from fastapi_keyauth import TOKEN_PATTERN
from tests.dashboard.site import Site
from tests.dashboard.visitor import Visitor

BERLIN = ZoneInfo("Europe/Berlin")  # where the browser believes it is


def test_a_key_is_created_shown_once_copied_and_works(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key("prod-api-server")
    visitor.field("Environment").select_option("staging")
    visitor.field("completions:write").check()
    visitor.press("Create key")
    expect(visitor.dialog.get_by_role("heading", name="Copy your key now")).to_be_visible()
    token = visitor.shown_token
    assert token.startswith("ka_staging_")
    visitor.press("Copy key")
    expect(visitor.dialog.get_by_role("status").filter(has_text="Copied: key")).to_be_attached()
    assert visitor.page.evaluate("navigator.clipboard.readText()") == token
    visitor.press("Copy command")
    expect(visitor.dialog.get_by_role("status").filter(has_text="Copied: command")).to_be_attached()
    line = visitor.page.evaluate("navigator.clipboard.readText()")
    assert line == f"curl '{visitor.site.url}/v1/models' -H 'api-key: {token}'"
    visitor.press("I have saved it")
    expect(visitor.dialog).to_have_count(0)
    expect(visitor.page.locator("#messages")).to_contain_text("prod-api-server is ready.")
    expect(visitor.row("prod-api-server")).to_contain_text("completions:write")
    assert httpx.get(f"{visitor.site.url}/v1/models", headers={"api-key": token}).status_code == 200


def test_no_token_is_left_anywhere_once_the_dialog_is_closed(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key()
    visitor.press("Create key")
    token = visitor.shown_token
    assert token in visitor.everything_kept()
    visitor.press("I have saved it")
    expect(visitor.row("prod-api-server")).to_be_visible()
    kept = visitor.everything_kept()
    assert not TOKEN_PATTERN.search(kept)
    assert token[-49:-6] not in kept
    visitor.page.reload()
    expect(visitor.row("prod-api-server")).to_be_visible()
    assert not TOKEN_PATTERN.search(visitor.everything_kept())


def test_leaving_the_page_closes_the_dialog_so_that_the_back_button_brings_no_token(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key()
    visitor.press("Create key")
    assert visitor.shown_token
    visitor.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    expect(visitor.dialog).to_have_count(0)
    assert not TOKEN_PATTERN.search(visitor.everything_kept())


def test_escape_closes_every_dialog_but_the_one_that_shows_a_token(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.press("Create key")
    visitor.page.keyboard.press("Escape")
    expect(visitor.dialog).to_have_count(0)
    visitor.start_new_key()
    visitor.page.keyboard.press("Enter")
    assert visitor.shown_token
    for _ in range(3):
        visitor.page.keyboard.press("Escape")
    assert visitor.shown_token


def test_every_expiry_shows_its_date_and_is_what_the_key_gets(visitor: Visitor) -> None:
    visitor.open_list()
    expected = {"7 days": 7, "30 days": 30, "90 days": 90, "1 year": 365, "Custom date": 3, "Never": None}
    for preset, days in expected.items():
        visitor.start_new_key(preset)
        expiry = visitor.dialog.locator("[data-field=expires_at]")
        expiry.get_by_role("radio", name=preset).check()
        if preset == "Custom date":
            visitor.press("Create key")
            expect(visitor.error_at("expires_at")).to_have_text("Choose a date or one of the presets.")
            visitor.field("Custom date and time").fill("2020-01-01T10:00")
            expect(expiry.locator(".result")).to_have_text("This date has passed.")
            visitor.press("Create key")
            expect(visitor.error_at("expires_at")).to_have_text("Choose a date in the future.")
            own = datetime.now(BERLIN) + timedelta(days=3)
            visitor.field("Custom date and time").fill(own.strftime("%Y-%m-%dT%H:%M"))
        result = expiry.locator(".result")
        if days is None:
            expect(result).to_contain_text("until it is revoked")
        else:
            end = datetime.now(BERLIN) + timedelta(days=days)
            left = r", in \d+ \w+" if preset == "Custom date" else ""
            expect(result).to_contain_text(re.compile(rf"until {end.day} \w+ {end.year}, \d\d:\d\d \S+{left}\."))
        visitor.press("Create key")
        assert visitor.shown_token
        visitor.press("I have saved it")
    made = {key.name: key.expires_at for key in visitor.site.run(visitor.site.auth.keys.list(visitor.user)).items}
    for preset, days in expected.items():
        expires_at = made[preset]
        assert (expires_at is None) == (days is None)
        if days is not None and expires_at is not None:
            assert abs(expires_at - datetime.now(UTC) - timedelta(days=days)) < timedelta(minutes=5)


def test_scopes_come_from_the_catalog_with_their_descriptions(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key()
    scopes = visitor.dialog.locator("[data-field=scopes]")
    expect(visitor.field("files:write")).to_have_accessible_description("Upload and delete files")
    scopes.get_by_text("Manage keys").click()
    assert scopes.get_by_role("checkbox").evaluate_all("all => all.map((box) => box.value)") == [
        "completions:write",
        "files:read",
        "files:write",
        "keys:read",
        "keys:write",
    ]
    visitor.field("keys:read").check()
    scopes.get_by_role("radio", name="Full access").check()
    expect(visitor.field("files:read")).to_be_hidden()
    visitor.press("Create key")
    assert visitor.shown_token
    [key] = visitor.site.run(visitor.site.auth.keys.list(visitor.user)).items
    assert key.scopes == ["*", "keys:read"]


def test_a_session_is_offered_what_it_holds_and_no_more(make_visitor: Callable[..., Visitor]) -> None:
    visitor = make_visitor(scopes=("files:read",))
    visitor.open_list()
    visitor.start_new_key()
    scopes = visitor.dialog.locator("[data-field=scopes]")
    expect(scopes.get_by_role("radio")).to_have_count(0)
    scopes.get_by_text("Manage keys").click()
    assert scopes.get_by_role("checkbox").evaluate_all("all => all.map((box) => box.value)") == [
        "files:read",
        "keys:read",
        "keys:write",
    ]


def test_errors_of_the_server_are_shown_at_their_fields(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.press("Create key")
    visitor.press("Create key")
    expect(visitor.error_at("name")).to_have_text("Enter a name.")
    expect(visitor.field("Name")).to_be_focused()
    expect(visitor.field("Name")).to_have_attribute("aria-invalid", "true")
    expect(visitor.error_at("scopes")).to_have_text("Choose what the key may do: at least one scope.")
    visitor.field("Name").fill("x")
    expect(visitor.error_at("name")).to_have_count(0)
    visitor.field("files:read").check()
    expect(visitor.error_at("scopes")).to_have_count(0)
    visitor.dialog.get_by_text("Metadata for programs").click()
    visitor.field("Metadataoptional").fill('{"team": "search"}')
    visitor.dialog.get_by_text("Restrict where it may be used").click()
    visitor.field("Allowed originsoptional").fill("https://shop.example/path")
    visitor.field("Allowed addressesoptional").fill("300.1.2.3")
    visitor.dialog.get_by_text("Restrict where it may be used").click()
    visitor.press("Create key")
    expect(visitor.error_at("allowed_origins")).to_contain_text("origin")
    expect(visitor.error_at("allowed_ips")).to_be_visible()
    expect(visitor.error_at("name")).to_have_count(0)
    visitor.field("Allowed originsoptional").fill("https://shop.example\nhttps://app.example")
    visitor.field("Allowed addressesoptional").fill("203.0.113.0/24")
    visitor.field("Requests per houroptional").fill("0")
    visitor.press("Create key")
    expect(visitor.error_at("hourly_limit")).to_contain_text("greater than or equal to 1")
    visitor.field("Requests per houroptional").fill("1,001")
    visitor.press("Create key")
    expect(visitor.error_at("hourly_limit")).to_have_text("The maximum is 1,000.")
    visitor.field("Requests per houroptional").fill("250")
    visitor.press("Create key")
    assert visitor.shown_token
    [key] = visitor.site.run(visitor.site.auth.keys.list(visitor.user)).items
    assert (key.hourly_limit, key.allowed_ips, key.metadata) == (250, ["203.0.113.0/24"], {"team": "search"})
    assert key.allowed_origins == ["https://shop.example", "https://app.example"]


def test_another_environment_is_checked_by_the_server(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key()
    visitor.field("Environment").select_option("Other…")
    visitor.field("Other environment").fill("Pre View")
    visitor.press("Create key")
    expect(visitor.error_at("environment")).to_be_visible()
    visitor.field("Other environment").fill("preview")
    visitor.press("Create key")
    assert visitor.shown_token.startswith("ka_preview_")


def test_an_error_that_concerns_no_field_is_shown_above_the_form(visitor: Visitor, site: Site) -> None:
    visitor.open_list()
    visitor.page.route(
        "**/data/keys", lambda route: route.fulfill(status=409, json={"code": "too_many_keys", "detail": "Revoke one."})
    )
    visitor.start_new_key()
    visitor.press("Create key")
    expect(visitor.dialog.get_by_role("alert")).to_have_text("Revoke one.")
    visitor.page.unroute("**/data/keys")
    visitor.page.route("**/data/keys", lambda route: route.abort())
    visitor.press("Create key")
    expect(visitor.dialog.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    visitor.problems.clear()  # the browser, too, says that it was not reached


def test_a_name_and_enter_create_no_key_without_a_scope(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key("only a name", scope=None)
    visitor.page.keyboard.press("Enter")
    expect(visitor.error_at("scopes")).to_have_text("Choose what the key may do: at least one scope.")
    expect(visitor.field("completions:write")).to_be_focused()
    assert visitor.site.run(visitor.site.auth.keys.list(visitor.user)).items == []


def test_a_single_scope_is_chosen_already(make_visitor: Callable[..., Visitor]) -> None:
    visitor = make_visitor(scopes=("files:read",))
    visitor.open_list()
    visitor.start_new_key("only a name", scope=None)
    visitor.page.keyboard.press("Enter")
    assert visitor.shown_token
    [key] = visitor.site.run(visitor.site.auth.keys.list(visitor.user)).items
    assert key.scopes == ["files:read"]


def test_enter_copies_the_token_and_does_not_close_it(visitor: Visitor) -> None:
    visitor.open_list()
    visitor.start_new_key()
    visitor.press("Create key")
    token = visitor.shown_token
    expect(visitor.dialog.locator(".button-primary")).to_have_count(1)
    visitor.page.keyboard.press("Enter")
    expect(visitor.dialog.get_by_role("status").filter(has_text="Copied: key")).to_be_attached()
    assert visitor.page.evaluate("navigator.clipboard.readText()") == visitor.shown_token == token


def test_id_and_hint_have_buttons_that_copy_them(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_key(made)
    for label, text in (("Copy the key ID", made.key.id), ("Copy the hint", made.key.hint)):
        visitor.page.get_by_role("button", name=label, exact=True).click()
        expect(visitor.page.get_by_role("status").filter(has_text="Copied")).to_have_count(1)
        assert visitor.page.evaluate("navigator.clipboard.readText()") == text
        expect(visitor.page.get_by_role("status").filter(has_text="Copied")).to_have_count(0)
