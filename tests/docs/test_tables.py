"""The tables of the docs match the code: settings, codes, routes, numbers."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_keyauth import TOKEN_PATTERN, KeyAuth, KeyAuthSettings, KeyPrincipal, SessionPrincipal, errors
from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.tokens import TokenParser
from fastapi_keyauth.http.problem_details import TABLE
from fastapi_keyauth.http.problem_renderer import ProblemRenderer
from fastapi_keyauth.keys.outbox import HOLDS_WITHIN_S
from tests.docs.pages import DOCS, PAGES, ProblemType, find_blocks, find_rows, name_of

SETTINGS_PAGE = DOCS / "reference/settings.md"
ERRORS_PAGE = DOCS / "reference/errors.md"
KEYS_PAGE = DOCS / "reference/keys.md"
CUSTOMERS_PAGE = DOCS / "how-to/for-your-customers.md"
ROUTES_PAGE = DOCS / "reference/http.md"
DESIGN_PAGE = DOCS / "explanation/design.md"

FAILED_ATTEMPTS = {"malformed_api_key", "invalid_api_key"}
NOT_OF_A_KEY = {
    *("session_required", "missing_session", "missing_credentials", "invalid_session"),
    *("not_found", "key_not_active", "too_many_keys"),
}
"""Codes of routes that take sessions, and of the management routes."""
EXAMPLES: list[errors.KeyAuthError] = [
    errors.MissingApiKey(),
    errors.MalformedApiKey("its checksum is wrong, so it was mistyped or cut off"),
    errors.InvalidApiKey(),
    errors.DisabledApiKey(),
    errors.RevokedApiKey(),
    errors.ExpiredApiKey(),
    errors.OwnerSuspended(),
    errors.OriginNotAllowed(),
    errors.AddressNotAllowed(),
    errors.MissingSession(),
    errors.InvalidSession(),
    errors.SessionRequired(),
    errors.MissingCredentials(),
    errors.InsufficientScope(["notes:write"]),
    errors.AddressBlocked(241),
    errors.RateLimitExceeded(1234, 1000, violated_policies=["hour"]),
    errors.KeyNotFound(),
    errors.KeyNotActive("disabled"),
    errors.TooManyKeys(100),
    errors.ChangePending(HOLDS_WITHIN_S),
    errors.TemporarilyUnavailable(),
]
"""One of each row of the table of answers, as docs/reference/errors.md shows it."""


def defaults() -> KeyAuthSettings:
    """Return the default settings."""
    return KeyAuthSettings(_env_file=None)


def shown(value: Any) -> str:
    """Return a default in the form of the tables."""
    if value is None or value == () or value == {}:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def codes_with_statuses() -> dict[str, int]:
    """Return every code of the table of problems."""
    return {row.code: row.status for row in TABLE.values()}


def test_every_setting_is_in_the_tables_with_its_default() -> None:
    rows = find_rows(SETTINGS_PAGE, "setting", "default")
    names = [row["setting"] for row in rows]
    assert sorted(names) == sorted(KeyAuthSettings.model_fields)
    settings = defaults()
    assert {row["setting"]: row["default"] for row in rows} == {name: shown(getattr(settings, name)) for name in names}


@pytest.mark.parametrize("row", find_rows(SETTINGS_PAGE, "in the environment"), ids=lambda row: row["setting"])
def test_the_form_in_the_environment_is_understood_and_changes_the_setting(
    row: ProblemType, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, _, value = row["in the environment"].partition("=")
    assert variable == f"KEYAUTH_{row['setting'].upper()}"
    monkeypatch.setenv(variable, value)
    assert getattr(defaults(), row["setting"]) != KeyAuthSettings.model_fields[row["setting"]].get_default(
        call_default_factory=True
    )


@pytest.mark.parametrize("row", find_rows(SETTINGS_PAGE, "unit and range"), ids=lambda row: row["setting"])
def test_the_bounds_shown_are_the_real_ones(row: ProblemType) -> None:
    bounds = [
        getattr(rule, kind)
        for rule in KeyAuthSettings.model_fields[row["setting"]].metadata
        for kind in ("ge", "gt", "le")
        if hasattr(rule, kind)
    ]
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", row["unit and range"])]
    assert [bound for bound in bounds if float(bound) not in numbers] == []


def test_every_code_is_in_the_table_with_its_status() -> None:
    rows = find_rows(ERRORS_PAGE, "code", "status", "failed attempt")
    found = [(row["code"], int(row["status"])) for row in rows]
    assert sorted(found) == sorted(codes_with_statuses().items())


def test_the_table_says_what_counts_as_a_failed_attempt() -> None:
    rows = find_rows(ERRORS_PAGE, "code", "failed attempt")
    assert {row["code"] for row in rows if row["failed attempt"] == "yes"} == FAILED_ATTEMPTS
    assert {row["failed attempt"] for row in rows} == {"yes", "no"}


def test_the_page_for_customers_has_every_code_of_a_route_that_takes_a_key() -> None:
    rows = find_rows(CUSTOMERS_PAGE, "code", "status", "what to do")
    assert {row["code"]: int(row["status"]) for row in rows} == {
        code: status for code, status in codes_with_statuses().items() if code not in NOT_OF_A_KEY
    }
    shown_bodies = [block.source for block in find_blocks(CUSTOMERS_PAGE, "json")]
    assert set(shown_bodies) <= {block.source for block in find_blocks(ERRORS_PAGE, "json")}


def test_every_code_has_a_section_that_names_its_status() -> None:
    text = ERRORS_PAGE.read_text("utf-8")
    sections = dict(re.findall(r"^### `(\w+)`\n\n\*\*(\d+)", text, re.MULTILINE))
    assert {code: int(status) for code, status in sections.items()} == codes_with_statuses()


def test_the_bodies_shown_are_the_real_ones() -> None:
    """Each row of the table of problems once, word for word."""
    assert {type(error) for error in EXAMPLES} == set(TABLE)
    problems = ProblemRenderer(defaults())
    visit = AuthContext(Credentials(), None, None)
    real = [json.loads(bytes(problems.response(error, visit).body)) for error in EXAMPLES]
    shown_bodies = [json.loads(block.source) for block in find_blocks(ERRORS_PAGE, "json")]
    assert sorted(shown_bodies, key=str) == sorted(real, key=str)


def test_the_management_routes_are_those_of_the_router() -> None:
    auth = KeyAuth(defaults())
    app = FastAPI()
    auth.install(app)
    app.include_router(auth.keys_router, prefix="/api-keys")
    real = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    found = [(row["method"], row["path"]) for row in find_rows(ROUTES_PAGE, "method", "path")]
    assert sorted(found) == sorted(real)


def test_every_dependency_is_in_the_table() -> None:
    named = {f"auth.{name}" for name in vars(KeyAuth(defaults())) if name.startswith(("require_", "optional_"))}
    assert {row["dependency"] for row in find_rows(KEYS_PAGE, "dependency", "requires", "returns")} == named


def test_the_regular_expression_is_the_published_one() -> None:
    assert f"\n{TOKEN_PATTERN.pattern}\n" in KEYS_PAGE.read_text("utf-8")
    for page in PAGES:
        patterns = re.findall(r"ka_\[[^`\s]+", page.read_text("utf-8"))
        assert set(patterns) <= {TOKEN_PATTERN.pattern}, page


def test_tokens_that_are_shown_whole_have_the_right_checksum() -> None:
    tokens = {token for page in PAGES for token in TOKEN_PATTERN.findall(page.read_text("utf-8"))}
    assert tokens
    for token in tokens:
        TokenParser("ka").parse(token)


def test_the_fields_of_the_principals_are_named() -> None:
    rows = {row["principal"]: row["holds"] for row in find_rows(KEYS_PAGE, "principal", "holds")}
    for kind in (KeyPrincipal, SessionPrincipal):
        assert re.findall(r"\w+", rows[kind.__name__]) == [
            name for name in kind.__dataclass_fields__ if not name.startswith("_")
        ]


def qualified(row: ProblemType) -> str:
    """Two modules may have a number of the same name."""
    return f"{row['module']}.{row['number']}"


@pytest.mark.parametrize("row", find_rows(DESIGN_PAGE, "number", "value", "module"), ids=qualified)
def test_numbers_that_are_not_settings_are_as_documented(row: ProblemType) -> None:
    module = importlib.import_module("fastapi_keyauth." + row["module"].removesuffix(".py").replace("/", "."))
    assert float(row["value"]) == getattr(module, row["number"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_below_auth_exists(page: Path) -> None:
    auth = KeyAuth(defaults())
    for chain in set(re.findall(r"(?<![\w.])auth\.([a-z_]+(?:\.[a-z_]+)?)", page.read_text("utf-8"))):
        thing: Any = auth
        for name in chain.split("."):
            assert hasattr(thing, name), f"auth.{chain}"
            thing = getattr(thing, name)
