"""Search for pasted texts: no URL of a request contains a part of a secret, and the key is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import expect

from fastapi_keyauth import CreatedKey
from tests.dashboard.chromium import Chromium
from tests.dashboard.site import PAGE, Site
from tests.dashboard.visitor import Visitor

MakeVisitor = Callable[..., Visitor]
Paste = Callable[[CreatedKey], str]
SHORTEST_PART = 8
"""Characters of a secret that must not be in a URL."""


def secret_part(token: str) -> str:
    return token.rsplit("_", 1)[1]


def parts(secret: str) -> set[str]:
    return {secret[at : at + SHORTEST_PART] for at in range(len(secret) - SHORTEST_PART + 1)}


FOUND: dict[str, Paste] = {
    "the token": lambda made: made.token,
    "spaces around it": lambda made: f"  {made.token}   ",
    "a line break around it": lambda made: f"{made.token}\n",
    "a line break inside": lambda made: f"{made.token[:40]}\n{made.token[40:]}",
    "a space inside": lambda made: f"{made.token[:40]} {made.token[40:]}",
    "quotes around it": lambda made: f'"{made.token}"',
    "a header": lambda made: f"Authorization: Bearer {made.token}",
    "a line of a file": lambda made: f"API_KEY={made.token}",
    "cut at the end": lambda made: made.token[:-7],
    "one character changed": lambda made: f"{made.token[:-1]}{'0' if made.token[-1] != '0' else '1'}",
    "an underscore lost before the secret": lambda made: "_".join(made.token.split("_")[:3]) + secret_part(made.token),
    "an underscore lost before the id": lambda made: made.token.replace("_live_", "_live", 1),
    "cut at the front": lambda made: made.token[5:],
    "the secret alone": lambda made: secret_part(made.token),
    "another prefix": lambda made: f"zz{made.token[2:]}",
    "the hint": lambda made: made.key.hint,
    "the id": lambda made: made.key.id,
    "the name": lambda made: made.key.name.upper(),
}
NOT_FOUND: dict[str, str] = {
    "a session token": "ks_" + "aB3dE5gH7j" * 4 + "kLmN9pQrS",
    "a token from elsewhere": "sk_test_51HqLyjWDarjtT1zdp7dc4FxYz8WuVtSrQpOnMlKjIhGf",
    "a UUID": "1f0c9a52-7b3e-4d18-9c64-2e8b5a7d3f10",
    "hexadecimal digits": "4f1a9c2b7d3e8f60",
}


def watch(visitor: Visitor) -> list[str]:
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    return asked


@dataclass(frozen=True)
class Searches:
    """One open list for many searches, since loading the page takes longer than a search."""

    visitor: Visitor
    wanted: CreatedKey
    asked: list[str]

    def clear(self) -> None:
        """Empty the search, and forget what was requested until the list is complete again."""
        self.visitor.page.get_by_role("searchbox").fill("")
        expect(self.visitor.page.locator(".key-name")).to_have_count(2)
        self.asked.clear()


@pytest.fixture(scope="module")
def searches(site: Site, chromium: Chromium) -> Iterator[Searches]:
    def open_list() -> Searches:
        visitor = Visitor(site, chromium.tab(), "searcher@example.com")
        wanted = visitor.make_key("the wanted one")
        visitor.make_key("another one")
        visitor.open_list()
        return Searches(visitor, wanted, watch(visitor))

    opened = chromium.run(open_list)
    yield opened
    chromium.run(opened.visitor.page.close)
    assert opened.visitor.problems == []


@pytest.mark.parametrize("pasted", FOUND)
def test_a_pasted_token_finds_its_key_and_never_leaves_the_page(
    searches: Searches, chromium: Chromium, pasted: str
) -> None:
    visitor, wanted, asked = searches.visitor, searches.wanted, searches.asked
    searches.clear()
    visitor.page.get_by_role("searchbox").fill(FOUND[pasted](wanted))
    expect(visitor.page.locator(".key-name")).to_have_text(["the wanted one"])
    sent = " ".join(asked)
    secret = secret_part(wanted.token)
    assert not [part for part in parts(secret) if part in sent]
    address = visitor.page.evaluate("JSON.stringify([location.href, history.state, {...localStorage}])")
    assert not [part for part in parts(secret) if part in address]
    if "_live_" in FOUND[pasted](wanted) and pasted != "the hint":
        expect(visitor.page.get_by_role("searchbox")).to_have_value(wanted.key.id)


@pytest.mark.parametrize("pasted", NOT_FOUND)
def test_what_could_be_a_secret_from_elsewhere_never_leaves_the_page(
    searches: Searches, chromium: Chromium, pasted: str
) -> None:
    visitor, asked = searches.visitor, searches.asked
    searches.clear()
    visitor.page.get_by_role("searchbox").fill(NOT_FOUND[pasted])
    expect(visitor.page.get_by_role("heading", name="No key matches")).to_be_visible()
    expect(visitor.page.get_by_text("not sent to the server")).to_be_visible()
    sent = " ".join([*asked, visitor.page.url])
    assert not [part for part in parts(NOT_FOUND[pasted]) if part in sent]


def test_a_long_name_is_found_although_it_could_be_a_secret(visitor: Visitor) -> None:
    visitor.make_key("backup-2026-11-29-frankfurt")
    visitor.make_key("another one")
    visitor.open_list()
    visitor.page.get_by_role("searchbox").fill("backup-2026-11-29-frank")
    expect(visitor.page.locator(".key-name")).to_have_text(["backup-2026-11-29-frankfurt"])


def test_a_token_in_the_address_of_the_page_is_cut_before_anything_is_asked(visitor: Visitor) -> None:
    made = visitor.make_key("the wanted one")
    visitor.make_key("another one")
    asked = watch(visitor)
    visitor.open(f"{PAGE}#/?q={made.token}")
    expect(visitor.page.locator(".key-name")).to_have_text(["the wanted one"])
    secret = secret_part(made.token)
    assert not [part for part in parts(secret) if part in visitor.page.url + " ".join(asked)]


def test_a_token_is_not_taken_for_an_owner_or_for_a_name(make_visitor: MakeVisitor) -> None:
    visitor = make_visitor(scopes=("*", "admin"))
    made = visitor.make_key("the wanted one")
    visitor.open_list()
    asked = watch(visitor)
    visitor.page.get_by_label("Owner ID").fill(made.token)
    visitor.page.get_by_role("searchbox", name="Search").fill("the wanted")
    expect(visitor.row("the wanted one").first).to_be_visible()
    assert secret_part(made.token) not in " ".join([*asked, visitor.page.url])
    visitor.start_new_key(made.token)
    visitor.press("Create key")
    expect(visitor.error_at("name")).to_contain_text("looks like a key itself")
