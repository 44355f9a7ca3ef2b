"""Sources and storage of the session, and pages that are mounted anywhere."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import expect

from tests.dashboard.site import PAGE, PASSWORD, fake_jwt
from tests.dashboard.visitor import Visitor

MakeVisitor = Callable[..., Visitor]


@pytest.mark.parametrize(("prefix", "slash"), [("", ""), ("/stripped", "/"), ("/told", "")])
def test_logging_in_with_the_form_of_the_page_works_wherever_it_is_mounted(
    make_visitor: MakeVisitor, prefix: str, slash: str
) -> None:
    visitor = make_visitor(is_logged_in=False)
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.open(prefix + PAGE + slash)
    expect(visitor.heading).to_have_text("Log in")
    visitor.page.get_by_label("Email").fill(visitor.user)
    visitor.page.get_by_label("Password").fill("wrong")
    visitor.press("Log in")
    expect(visitor.page.get_by_role("alert")).to_have_text("Email or password is wrong.")
    visitor.page.get_by_label("Password").fill(PASSWORD)
    visitor.press("Log in")
    expect(visitor.heading).to_have_text("API keys")
    session = visitor.page.evaluate("sessionStorage.getItem('keyauth.session')")
    visitor.start_new_key()
    visitor.press("Create key")
    assert f"{visitor.site.url}{prefix}/v1/models" in visitor.dialog.locator(".curl").inner_text()
    visitor.press("I have saved it")
    expect(visitor.row("prod-api-server")).to_be_visible()
    assert all(url.startswith(visitor.site.url + prefix) for url in asked)
    assert not [url for url in asked if session in url or "password" in url]
    visitor.press("Log out")
    expect(visitor.heading).to_have_text("Log in")
    assert session not in visitor.everything_kept()
    ended = httpx.get(f"{visitor.site.url}{PAGE}/data/options", headers={"Authorization": f"Bearer {session}"})
    assert ended.json()["code"] == "invalid_session"


def test_a_session_that_ends_leads_to_the_login_and_back(visitor: Visitor) -> None:
    made = visitor.make_key("worker")
    visitor.open_key(made)
    # The last of what the page asks for by itself: a question still on its way would find the session ended first.
    expect(visitor.page.get_by_text("No requests in the last 7 days.")).to_be_visible()
    visitor.site.run(visitor.site.auth.sessions.revoke_all(visitor.user))
    visitor.press("Disable")
    visitor.press("Disable key")
    expect(visitor.page.get_by_text("Your session has ended.")).to_be_visible()
    expect(visitor.dialog).to_have_count(0)
    visitor.page.get_by_label("Email").fill(visitor.user)
    visitor.page.get_by_label("Password").fill(PASSWORD)
    visitor.page.keyboard.press("Enter")
    expect(visitor.heading).to_have_text("worker")


def test_sessions_from_elsewhere_work_and_a_missing_one_is_explained(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(is_logged_in=False)
    visitor.open("/jwt" + PAGE)
    expect(visitor.page.get_by_text("Open this page from the application")).to_be_visible()
    visitor.page.evaluate("token => localStorage.setItem('jwt', token)", fake_jwt(visitor.user))
    visitor.press("Try again")
    expect(visitor.page.get_by_role("heading", name="No keys yet")).to_be_visible()
    visitor.start_new_key("made with a JWT", scope=None)
    visitor.dialog.get_by_role("radio", name="Only what it needs").check()
    visitor.dialog.get_by_label("Names of scopes").fill("items:read, items:write")
    visitor.press("Create key")
    line = visitor.dialog.locator(".curl").inner_text()
    token = visitor.shown_token
    visitor.press("I have saved it")
    expect(visitor.row("made with a JWT")).to_contain_text("items:read")
    # Without an example of the application's the line asks for the key itself.
    answer = httpx.get(line.split("'")[1], headers={"api-key": token})
    assert answer.json()["scopes"] == ["items:read", "items:write"]
    visitor.press("Log out")
    assert visitor.page.evaluate("localStorage.getItem('jwt')") is None


def test_the_page_follows_the_system_until_the_user_chooses_and_remembers_that(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(context="with colours of its own", color_scheme="dark")
    visitor.open_list()

    def ground() -> str:
        colour: str = visitor.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return colour

    dark = ground()
    visitor.prefer("light")
    light = ground()
    assert dark != light
    visitor.page.get_by_role("button", name="Colors: As in the system").click()
    visitor.page.get_by_role("button", name="Colors: Light").click()
    assert ground() == dark
    visitor.page.reload()
    expect(visitor.page.get_by_role("button", name="Colors: Dark")).to_be_visible()
    assert ground() == dark
    visitor.page.get_by_role("button", name="Colors: Dark").click()
    assert ground() == light


def test_nothing_is_blurred_for_users_who_prefer_less_transparency(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(transparency="no-preference")
    visitor.open_list()

    def blurs() -> list[str]:
        visitor.press("Create key")
        found: list[str] = visitor.page.evaluate(
            """() => [
                getComputedStyle(document.querySelector("#bar")).backdropFilter,
                getComputedStyle(document.querySelector("dialog[open]"), "::backdrop").backdropFilter,
            ]"""
        )
        visitor.page.keyboard.press("Escape")
        return found

    assert blurs() == ["blur(10px)", "blur(2px)"]
    visitor.prefer("light")
    assert blurs() == ["none", "none"]
