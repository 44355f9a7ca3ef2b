"""User input is shown as text, whatever it contains."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

import fastapi_keyauth
from tests.dashboard.visitor import Visitor

NAME = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
METADATA = {"</pre><svg onload=alert(1)>": "'\"><b>bold</b>"}


def test_markup_in_names_and_metadata_is_shown_and_never_run(visitor: Visitor) -> None:
    made = visitor.make_key(NAME, metadata=METADATA, scopes=["files:read"])
    visitor.open_list()
    expect(visitor.row(NAME)).to_be_visible()
    visitor.choose(NAME, "Rotate")
    visitor.press("Rotate key")
    expect(visitor.dialog).to_contain_text(NAME)
    visitor.press("I have saved it")
    visitor.choose(NAME, "Revoke")
    expect(visitor.dialog).to_contain_text(NAME)
    visitor.press("Cancel")
    visitor.site.run(visitor.site.auth.keys.update(made.key.id, name=NAME + "2"))
    visitor.open(f"/settings/api-keys#/keys/{made.key.id}")
    expect(visitor.heading).to_have_text(NAME + "2")
    expect(visitor.page.locator(".history")).to_contain_text(NAME)
    expect(visitor.page.locator(".metadata")).to_contain_text("<svg onload=alert(1)>")
    assert visitor.page.title() == f"{NAME}2 · Parrot AI"
    assert visitor.page.locator("img, main script, main b").count() == 0


def test_no_script_of_the_page_makes_markup_from_strings_or_evaluates_them() -> None:
    folder = Path(fastapi_keyauth.__file__).parent / "http" / "dashboard" / "static"
    scripts = list(folder.rglob("*.js"))
    assert scripts
    forbidden = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser")
    assert [path.name for path in scripts if forbidden.search(path.read_text("utf-8"))] == []


def test_no_file_of_the_page_names_another_host() -> None:
    folder = Path(fastapi_keyauth.__file__).parent / "http" / "dashboard" / "static"
    namespace = "http://www.w3.org/2000/svg"
    for path in folder.rglob("*.*"):
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\"'\s)]*", path.read_text("utf-8")))
        assert {address for address in addresses if not address.endswith("example.com")} <= {namespace}, path
