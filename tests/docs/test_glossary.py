"""The glossary can be searched by eye, and names what the terms of the docs are."""

import re

import pytest

from tests.docs.pages import DOCS

TEXT = (DOCS / "reference/glossary.md").read_text("utf-8")
TERMS = re.findall(r"^\*\*(.+)\*\*$", TEXT, re.MULTILINE)


def test_terms_are_in_alphabetical_order_and_each_has_a_meaning() -> None:
    assert sorted(TERMS, key=str.lower) == TERMS
    assert len(re.findall(r"^\*\*.+\*\*\n:   \S", TEXT, re.MULTILINE)) == len(TERMS)


@pytest.mark.parametrize(
    "term",
    [
        *("rate limit", "hourly limit", "unit", "key", "secret", "token", "owner", "principal", "caller"),
        *("session", "session token", "failed attempt", "blocked address", "admit", "refuse", "reject"),
        *("revoke", "disable", "rotate", "inactive", "missing", "malformed", "invalid", "unavailable", "outage"),
        *("recover", "generation", "worker", "request context", "address", "lease", "reservation", "window"),
    ],
)
def test_the_words_that_have_one_meaning_on_all_pages_are_explained(term: str) -> None:
    words = {word for entry in TERMS for word in re.split(r", | \(|\)", entry)}
    assert term in words
