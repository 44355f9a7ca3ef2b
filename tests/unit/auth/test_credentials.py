"""API tokens and session tokens that are read from the headers of a request."""

import pytest

from fastapi_keyauth import KeyAuthSettings
from fastapi_keyauth.auth.credentials import CredentialReader, Credentials

KEY, OTHER = "ka_live_one", "ka_live_two"
HEADER = "the 'api-key' header"
Lines = list[tuple[str, str]]


def read(lines: Lines, **settings: object) -> Credentials:
    reader = CredentialReader.of(KeyAuthSettings(_env_file=None, **settings))
    headers = [(name.encode(), value.encode("latin-1")) for name, value in lines]
    return reader.read(headers)[0]


def bearers(*values: str) -> Lines:
    return [("authorization", f"Bearer {value}") for value in values]


@pytest.mark.parametrize(
    ("lines", "token", "session"),
    [
        ([], None, None),
        ([("accept", "*/*"), ("accept", "text/html")], None, None),
        ([("api-key", KEY)], KEY, None),
        ([("api-key", f" \t{KEY} ")], KEY, None),
        ([("api-key", "")], None, None),
        ([("api-key", " ")], None, None),
        ([("api-key", ""), ("api-key", "")], None, None),
        ([("api-key", ""), *bearers(KEY)], KEY, None),
        ([("api-key", "\xe9")], "\xe9", None),
        (bearers(KEY), KEY, None),
        (bearers(f"  {KEY}\t"), KEY, None),
        ([("authorization", f"bEARER {KEY}")], KEY, None),
        ([("authorization", f" \tBearer {KEY}")], KEY, None),
        ([("authorization", f"Basic {KEY}")], None, None),
        (bearers(""), None, None),
        (bearers(" \t"), None, None),
        (bearers("ks_session"), None, "ks_session"),
        (bearers("kappa"), None, "kappa"),
        (bearers(KEY, "ks_session"), KEY, "ks_session"),
        ([("api-key", KEY), *bearers("ks_session")], KEY, "ks_session"),
        ([("api-key", KEY), *bearers(KEY)], KEY, None),
    ],
)
def test_what_the_headers_hold(lines: Lines, token: str | None, session: str | None) -> None:
    found = read(lines)
    assert (found.token, found.token_problem) == (token, None)
    assert (found.session, found.session_is_unusable) == (session, False)
    assert (found.has_token, found.has_session) == (token is not None, session is not None)


@pytest.mark.parametrize("session", ["ks_session", "*", "*session"])
def test_tokens_of_any_form_are_imported_from_the_header_alone(session: str) -> None:
    found = read([("api-key", "anything"), *bearers(session)], imported_prefixes=["*"])
    assert (found.token, found.session) == ("anything", session)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([("api-key", KEY), ("api-key", KEY)], f"{HEADER} was sent 2 times"),
        ([("api-key", KEY), ("api-key", "")], f"{HEADER} was sent 2 times"),
        ([("api-key", KEY), ("api-key", OTHER), *bearers("ks_session")], f"{HEADER} was sent 2 times"),
        (bearers(KEY, OTHER), "several keys were sent as Bearer values"),
        (bearers(KEY, KEY), "several keys were sent as Bearer values"),
        ([("api-key", KEY), *bearers(OTHER)], f"{HEADER} and the Bearer value are different keys"),
    ],
)
def test_several_different_tokens_are_all_rejected(lines: Lines, problem: str) -> None:
    found = read(lines)
    assert (found.token, found.token_problem, found.has_token) == (None, problem, True)


@pytest.mark.parametrize("values", [("ks_one", "ks_two"), ("ks_one", "ks_one", "ks_two"), (KEY, "ks_one", "ks_two")])
def test_several_different_sessions_are_all_rejected(values: tuple[str, ...]) -> None:
    found = read(bearers(*values))
    assert (found.session, found.session_is_unusable, found.has_session) == (None, True, True)


def test_a_session_that_is_sent_twice_is_one_session() -> None:
    found = read(bearers("ks_one", "ks_one"))
    assert (found.session, found.session_is_unusable) == ("ks_one", False)


@pytest.mark.parametrize("others", [(), ("ks_session",)])
def test_a_key_that_is_not_accepted_as_a_bearer_value_is_neither_a_key_nor_a_session(others: tuple[str, ...]) -> None:
    found = read(bearers(KEY, *others), accept_bearer_keys=False)
    assert (found.token, found.token_problem, found.token_is_bearer) == (None, None, False)
    assert (found.session, found.session_is_unusable) == (None, True)


def test_a_session_is_accepted_if_keys_are_not_bearer_values() -> None:
    found = read([("api-key", KEY), *bearers("ks_session")], accept_bearer_keys=False)
    assert (found.token, found.session, found.session_is_unusable) == (KEY, "ks_session", False)


@pytest.mark.parametrize(
    ("lines", "is_bearer"),
    [([("api-key", KEY)], False), (bearers(KEY), True), ([("api-key", KEY), *bearers(KEY)], True)],
)
def test_whether_the_token_came_as_a_bearer_value(lines: Lines, is_bearer: bool) -> None:
    assert read(lines).token_is_bearer is is_bearer


@pytest.mark.parametrize(("prefixes", "is_key"), [([], False), (["old_"], True), (["*"], False)])
def test_bearer_values_with_an_imported_prefix_are_keys(prefixes: list[str], is_key: bool) -> None:
    found = read(bearers("old_secret"), imported_prefixes=prefixes)
    assert (found.token, found.session) == (("old_secret", None) if is_key else (None, "old_secret"))


def test_a_mapping_that_lost_a_repeated_header_is_not_believed() -> None:
    reader = CredentialReader.of(KeyAuthSettings(_env_file=None))
    headers = [(b"api-key", KEY.encode()), (b"api-key", OTHER.encode())]
    assert reader.read(headers)[0].token_problem == f"{HEADER} was sent 2 times"


def test_the_repr_shows_no_token() -> None:
    assert KEY not in repr(read([("api-key", KEY), *bearers("ks_session")]))


@pytest.mark.parametrize(
    ("lines", "origin"),
    [
        ([], None),
        ([("origin", "https://a.example")], "https://a.example"),
        ([("origin", "")], None),
        ([("origin", ""), ("origin", "")], ", "),
        ([("origin", "https://a.example"), ("api-key", KEY), ("origin", "https://b.example")], "https://a.example, https://b.example"),
        ([("origin", "https://a.example"), *bearers(KEY)], "https://a.example"),
        (bearers(KEY), None),
    ],
)  # fmt: skip
def test_origin_is_read_with_the_credentials(lines: Lines, origin: str | None) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in lines]
    assert CredentialReader("api-key", "ka", accept_bearer_keys=True).read(headers)[1] == origin
