"""Every parser of client input, on random input: it returns what a simpler parser returns, or rejects the input.
It never fails."""

import posixpath
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_keyauth.auth.credentials import CredentialReader
from fastapi_keyauth.domain.ip_addresses import AddressResolver, parse_forwarded, parse_network
from fastapi_keyauth.domain.origins import parse_origin
from fastapi_keyauth.domain.pagination import read_cursor, read_event_cursor, write_cursor
from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.domain.tokens import ALPHABET, TokenFormError, TokenParser, format_token
from fastapi_keyauth.http.protect import Exemptions
from tests.helpers.fuzzing import fuzzed

PARSER = TokenParser("ka")
READER = CredentialReader("api-key", "ka", accept_bearer_keys=True)
TRUSTED = ("10.0.0.0/8", "fd00::/8")
RESOLVER = AddressResolver(TRUSTED, 64)
PROXY = ("10.0.0.1", 4711)


def refusal_of(read: Callable[[str], Any], text: str) -> str | None:
    """Return why a parser rejects a text; None if it accepts it."""
    try:
        read(text)
    except ValueError as error:
        return str(error)
    return None


base62 = st.text(ALPHABET, min_size=43, max_size=43)
ids = st.text(ALPHABET, min_size=12, max_size=12)
environments = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=16)
tokens = st.builds(format_token, st.just("ka"), environments, ids, base62)
texts = st.text(max_size=80)
nearly_tokens = st.one_of(
    texts,
    tokens.map(lambda token: token[:-1]),
    st.builds(lambda token, at, text: token[: at % 70] + text + token[at % 70 :], tokens, st.integers(0), texts),
    st.builds(lambda token, text: token + text, tokens, texts),
    tokens.map(str.upper),
    st.text("ka_live" + ALPHABET[:5], max_size=130),
)
addresses = st.one_of(st.ip_addresses().map(str), st.sampled_from(["10.1.2.3", "fd00::1", "::ffff:10.0.0.9"]))
entries = st.one_of(
    addresses,
    addresses.map(lambda address: f"[{address}]:4711" if ":" in address else f"{address}:4711"),
    st.text(max_size=20),
    st.sampled_from(
        ["", "unknown", "_hidden", "10.0.0.1:99999x", "[::1", "::1]", "1.2.3", "010.0.0.1", "1.2.3.4%eth0"]
    ),
)


@fuzzed(100)
@given(token=tokens)
def test_a_token_is_read_as_it_was_written(token: str) -> None:
    parsed = PARSER.parse(token)
    assert format_token("ka", parsed.environment, parsed.key_id, parsed.secret) == token
    assert parsed.secret not in repr(parsed)


@fuzzed(100)
@given(text=nearly_tokens)
def test_what_is_read_as_a_token_is_one_to_the_last_character(text: str) -> None:
    refusal = refusal_of(PARSER.parse, text)
    if refusal is None:
        parsed = PARSER.parse(text)
        assert format_token("ka", parsed.environment, parsed.key_id, parsed.secret) == text
    else:
        assert len(text) < 8 or text not in refusal


@fuzzed(100)
@given(before=texts, token=tokens, after=texts)
def test_a_token_in_a_text_is_cut_down(before: str, token: str, after: str) -> None:
    assert token[-40:] not in redact(before + token + after)


def plainly_read(lines: list[tuple[bytes, bytes]]) -> tuple[set[str], set[str]]:
    """Return every API token and every other Bearer value that is sent, including repetitions."""
    keys: set[str] = set()
    sessions: set[str] = set()
    for name, value in lines:
        text = value.decode("latin-1").strip(" \t")
        if name == b"api-key" and text:
            keys.add(text)
        if name == b"authorization":
            scheme, _, rest = text.partition(" ")
            rest = rest.strip(" \t")
            if scheme.lower() == "bearer" and rest:
                (keys if rest.startswith("ka_") else sessions).add(rest)
    return keys, sessions


values = st.one_of(
    st.binary(max_size=30),
    st.builds(
        lambda scheme, rest: scheme + rest, st.sampled_from([b"Bearer ", b"bearer  ", b"Basic "]), st.binary(max_size=9)
    ),
    tokens.map(str.encode),
    tokens.map(lambda token: b"Bearer " + token.encode()),
)
header_lines = st.lists(
    st.tuples(st.sampled_from([b"api-key", b"authorization", b"api_key", b"x-api-key", b"origin"]), values), max_size=5
)


@fuzzed(100)
@given(lines=header_lines)
def test_one_token_and_one_session_are_read_or_none(lines: list[tuple[bytes, bytes]]) -> None:
    read, origin = READER.read(lines)
    keys, sessions = plainly_read(lines)
    assert read.token is None or keys == {read.token}
    assert read.session is None or sessions == {read.session}
    assert read.has_token == bool(keys) or read.token_problem is not None
    assert not (read.token and read.token_problem)
    if len(keys) > 1:
        assert read.token is None
        assert read.token_problem
    origins = [value.decode("latin-1") for name, value in lines if name == b"origin"]
    assert (origin or "") == ", ".join(origins)


@fuzzed(100)
@given(lines=st.lists(st.lists(entries, max_size=4).map(", ".join), max_size=3), more=st.lists(entries, max_size=4))
def test_entries_left_of_the_first_untrusted_one_do_not_change_the_address(lines: list[str], more: list[str]) -> None:
    """Entries of the client are always left of those that proxies add."""
    stranger = "203.0.113.9"
    sent = [(b"x-forwarded-for", line.encode("utf-8")) for line in [*lines, ", ".join([*more, stranger, "10.9.9.9"])]]
    found = RESOLVER.resolve(PROXY, sent)
    assert found is not None
    assert found.text == stranger


@fuzzed(100)
@given(lines=st.lists(st.lists(entries, max_size=4).map(", ".join), max_size=3), peer=addresses)
def test_the_address_is_the_peer_or_one_that_was_forwarded(lines: list[str], peer: str) -> None:
    found = RESOLVER.resolve((peer, 1), [(b"x-forwarded-for", line.encode("utf-8")) for line in lines])
    assert found is not None
    whole = ",".join(lines).split(",")
    candidates = {str(parse_forwarded(entry)) for entry in whole}
    peer_itself = AddressResolver([], 64).resolve((peer, 1), [])
    assert found.text in candidates or found == peer_itself
    if not any(ip_address(peer_itself.text) in ip_network(net) for net in TRUSTED):  # type: ignore[union-attr]  # it is an address
        assert found == peer_itself


@fuzzed(100)
@given(entry=entries)
def test_an_entry_is_an_address_or_nothing(entry: str) -> None:
    found = parse_forwarded(entry)
    if found is not None:
        assert parse_forwarded(str(found)) == found
        assert parse_forwarded(f"[{found}]:80" if found.version == 6 else f"{found}:80") == found


@fuzzed(100)
@given(
    text=st.one_of(st.text(max_size=70), addresses, st.builds(lambda a, n: f"{a}/{n}", addresses, st.integers(-1, 130)))
)
def test_a_network_is_read_or_refused_in_one_way(text: str) -> None:
    if refusal_of(parse_network, text) is None:
        network = parse_network(text)
        assert parse_network(str(network)) == network


@fuzzed(100)
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.builds(
            "{}://{}:{}".format,
            st.sampled_from(["http", "HTTPS", "capacitor", "1x", ""]),
            st.one_of(st.text(max_size=10), st.sampled_from(["a.example", "[::1]", "A.EXAMPLE"])),
            st.integers(-5, 70_000),
        ),
    )
)
def test_an_origin_is_read_into_one_form(text: str) -> None:
    if refusal_of(parse_origin, text) is not None:
        return
    origin = parse_origin(text)
    assert parse_origin(origin) == origin
    assert origin == origin.lower()
    assert not set(origin) & set(" \t\r\n,;@?#*")
    assert origin.count("/") == 2


moments = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001  # as Hypothesis wants them


@fuzzed(100)
@given(moment=moments, key_id=ids)
def test_a_cursor_is_read_as_it_was_written(moment: datetime, key_id: str) -> None:
    key: Any = SimpleNamespace(created_at=moment, id=key_id)
    assert read_cursor(write_cursor(key)) == (moment, key_id)


@fuzzed(100)
@given(text=st.one_of(st.text(max_size=200), st.from_regex(r"[A-Za-z0-9_-]{0,80}", fullmatch=True)))
def test_a_cursor_is_ours_or_refused(text: str) -> None:
    for read in (read_cursor, read_event_cursor):
        refusal = refusal_of(read, text)
        assert refusal is None or refusal == "cursor: must be the next_cursor of a page"
    if refusal_of(read_cursor, text) is None:
        assert read_cursor(text)[0].utcoffset() == timedelta(0)


EXEMPT = Exemptions(["/health", "/docs/*"])
segments = st.one_of(
    st.sampled_from(["docs", "health", "..", ".", "", "%2e%2e", "..;", "items", "\\..", "%2F"]), st.text(max_size=4)
)


@fuzzed(100)
@given(parts=st.lists(segments, max_size=6))
def test_what_is_exempt_is_so_however_it_is_read(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    if EXEMPT.covers(path):
        read = posixpath.normpath(unquote(unquote(path)).replace("\\", "/").replace(";", "/"))
        assert read in ("/health", "/docs") or read.startswith("/docs/")


@pytest.mark.parametrize("length", [0, 1, 128, 129, 100_000])
def test_a_long_value_is_refused_before_it_is_examined(length: int) -> None:
    with pytest.raises(TokenFormError):
        PARSER.parse("ka_" + "a" * length)
