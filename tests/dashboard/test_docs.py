"""The page of the docs about the key page is correct."""

from __future__ import annotations

import re
from dataclasses import fields

from fastapi_keyauth import DashboardOptions
from tests.dashboard.site import FOLDER
from tests.docs.pages import DOCS, find_rows

PAGE = DOCS / "how-to/key-page.md"


def test_every_option_is_in_the_table_with_its_default() -> None:
    rows = {row["option"]: row["default"] for row in find_rows(PAGE, "option", "default")}
    assert rows == {field.name: str(field.default) or "none" for field in fields(DashboardOptions)}


def test_the_properties_in_the_docs_are_those_of_the_stylesheet() -> None:
    shown = {name for row in find_rows(PAGE, "property") for name in re.findall(r"--keyauth-[a-z-]+", row["property"])}
    assert shown == set(re.findall(r"var\((--keyauth-[a-z-]+)", (FOLDER / "base.css").read_text("utf-8")))
