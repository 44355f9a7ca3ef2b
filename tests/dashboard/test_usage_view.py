"""The view of usage: by day, month, key and unit, one key alone, and the CSV file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Request, expect

from fastapi_keyauth.domain.principals import KEYS_READ
from tests.dashboard.site import PAGE
from tests.dashboard.visitor import Visitor


def days_ago(days: int) -> date:
    return datetime.now(UTC).date() - timedelta(days=days)


def test_usage_by_day_and_by_key_is_shown_and_saved_as_csv(visitor: Visitor) -> None:
    worker, shop = visitor.make_key("worker"), visitor.make_key("shop")
    hour = datetime.now(UTC).hour
    # At the first hour of each day, so that the numbers are of that day at any time.
    visitor.site.add_usage(worker.key.id, {hour: (1000, 7), hour + 24: (20, 0)})
    visitor.site.add_usage(shop.key.id, {hour: (300, 0)})
    asked: list[str] = []

    def note_request(request: Request) -> None:
        asked.append(request.url)

    visitor.page.on("request", note_request)
    visitor.open_list()
    views = visitor.page.get_by_role("navigation", name="Views")
    expect(views.get_by_role("link", name="Keys")).to_have_attribute("aria-current", "page")
    views.get_by_role("link", name="Usage").click()
    expect(visitor.heading).to_have_text("Usage")
    expect(visitor.heading).to_be_focused()
    rows = visitor.page.locator(".report tbody tr")
    today = re.compile(rf"\b{days_ago(0).day} .+{days_ago(0).year}\s*1,300\s*7\s*Not yet")
    expect(rows.first).to_have_text(today)
    expect(rows.nth(1).locator("td").first).to_have_text("20")
    expect(visitor.page.locator(".report tfoot")).to_contain_text("1,320")
    expect(
        visitor.page.get_by_role("img", name=re.compile("Requests per day .+ 1,320 admitted, 7 refused"))
    ).to_be_visible()

    with visitor.page.expect_download() as saved:
        visitor.press("Download CSV")
    first, last = days_ago(29), days_ago(-1)
    assert saved.value.suggested_filename == f"usage-{first}-{last}-day.csv"
    lines = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text("utf-8"))))
    assert lines[-1] == {"day": str(days_ago(0)), "requests": "1300", "refused": "7", "closed": "false"}
    expect(visitor.page.locator("#messages")).to_contain_text("has been saved")
    session = visitor.page.evaluate("sessionStorage.getItem('keyauth.session')")
    assert [url for url in asked if "format=csv" in url]
    assert [url for url in asked if session in url] == []

    visitor.page.get_by_role("radio", name="Key").check()
    expect(rows.locator("th a")).to_have_text(["worker", "shop"])
    expect(rows.first).to_contain_text(worker.key.hint)
    assert urlsplit(visitor.page.url).fragment == "/usage?by=key"
    visitor.page.get_by_label("Period").select_option("Custom")
    visitor.page.get_by_label("Last day").fill("2020-01-31")
    visitor.page.get_by_label("First day").fill("2020-01-01")
    expect(visitor.page.get_by_role("heading", name="No usage in this period")).to_be_visible()
    visitor.page.reload()
    expect(visitor.page.get_by_label("First day")).to_have_value("2020-01-01")
    visitor.press("Show the last 12 months")
    expect(visitor.heading).to_be_focused()
    rows.get_by_role("link", name="shop").click()
    expect(visitor.heading).to_have_text("shop")
    expect(visitor.page.locator(".back")).to_have_text("Usage")
    visitor.page.get_by_role("link", name="Usage by day").click()
    only = visitor.page.get_by_role("button", name="Only shop: remove this filter")
    expect(only).to_be_visible()
    expect(visitor.page.locator(".report tfoot")).to_contain_text("300")
    only.click()
    expect(visitor.page.locator(".report tfoot")).to_contain_text("1,320")
    expect(only).to_have_count(0)


def test_a_custom_period_is_in_the_address_and_an_impossible_one_is_explained(visitor: Visitor) -> None:
    worker = visitor.make_key("worker")
    visitor.site.add_usage(worker.key.id, {datetime.now(UTC).hour: (5, 0)})
    day = days_ago(0)
    visitor.open(f"{PAGE}#/usage?period=custom&from={day}&to={day}")
    row = visitor.page.locator(".report tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("5")
    visitor.page.get_by_label("Last day").fill(str(days_ago(1)))
    problem = visitor.page.get_by_text("The last day is before the first day.")
    expect(problem.first).to_be_visible()
    expect(problem.last).to_have_role("status")
    expect(visitor.page.get_by_role("button", name="Download CSV")).to_be_hidden()
    visitor.page.go_back()
    expect(row).to_contain_text("5")
    visitor.page.goto(f"{visitor.site.url}{PAGE}#/usage?period=custom&from=1800-01-01&to={day}")
    expect(visitor.page.get_by_text("Must not be before 1970-01-01.")).to_be_visible()
    visitor.page.goto(f"{visitor.site.url}{PAGE}#/usage?period=nonsense&by=nonsense&key=nonsense&from=x")
    expect(visitor.page.get_by_label("Period")).to_have_value("30-days")
    assert urlsplit(visitor.page.url).fragment == "/usage"


def test_a_member_sees_the_usage_of_the_chosen_owner_in_every_unit(make_visitor: Callable[..., Visitor]) -> None:
    member = make_visitor(context="projects", is_logged_in=False)
    site, auth = member.site, member.site.projects_auth
    owners = [f"{name} of {member.user}" for name in ("a", "b")]
    site.members[member.user] = {owner: [KEYS_READ] for owner in owners}
    member.hand_over(site.run(auth.sessions.create(member.user)))
    for owner, used in zip(owners, (3, 4), strict=True):
        made = site.run(auth.keys.create(owner, f"of {owner}"))
        site.add_usage(made.key.id, {0: (used, 0)}, auth=auth)
        site.add_usage(made.key.id, {0: (used * 1000, 0)}, "tokens", auth)
    member.open(f"/projects{PAGE}#/usage?by=key")
    table = member.page.locator(".report")
    expect(table.locator("thead th")).to_have_text(["Key", "Requests", "Tokens", "Refused", "Final"])
    expect(table.locator("tbody")).to_contain_text(re.compile(r"of a of .+3\s*3,000\s*0"))
    member.page.get_by_label("Owner", exact=True).select_option(owners[1])
    expect(table.locator("tbody")).to_contain_text(re.compile(r"of b of .+4\s*4,000\s*0"))
    member.page.get_by_role("radio", name="Unit").check()
    expect(table.locator("tbody tr")).to_have_text([re.compile(r"requests\s*4\s*0"), re.compile(r"tokens\s*4,000\s*0")])
    member.page.get_by_role("link", name="Keys", exact=True).click()
    expect(member.page.locator(".key-name")).to_have_text([f"of {owners[1]}"])
    member.page.go_back()
    expect(member.page.get_by_label("Owner", exact=True)).to_have_value(owners[1])
    expect(table.locator("tbody")).to_contain_text("tokens")


def test_an_administrator_sees_the_usage_and_the_audit_of_a_typed_owner(make_visitor: Callable[..., Visitor]) -> None:
    admin = make_visitor(scopes=("*", "admin"))
    owner = f"owner of {admin.user}"
    made = admin.site.create_key(owner, "worker")
    admin.site.add_usage(made.key.id, {0: (12, 0)})
    admin.open(f"{PAGE}#/usage?by=key")
    field = admin.page.get_by_label("Owner", exact=True)
    field.fill(made.token)
    field.press("Enter")
    field.fill(owner)
    field.press("Enter")
    expect(admin.page.locator(".report tbody tr")).to_have_count(1)
    expect(admin.page.locator(".report tbody")).to_contain_text("worker")
    assert made.token not in admin.page.url
    admin.page.get_by_role("link", name="Audit", exact=True).click()
    expect(admin.page.locator(".finding .key-name")).to_have_text(["worker"])
    expect(admin.page.get_by_label("Owner", exact=True)).to_have_value(owner)
    expect(admin.page.locator(".finding")).to_contain_text(owner)
