"""Permissions of callers, and refusals of callers that would grant more than they hold."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from fastapi_keyauth import InsufficientScope, KeyAuthSettings, KeyNotFound, KeyPrincipal, SessionPrincipal
from fastapi_keyauth.domain import bounds, ip_addresses
from fastapi_keyauth.domain.fields import NewKey
from fastapi_keyauth.domain.keys import Key, KeySnapshot
from fastapi_keyauth.domain.lifetimes import KeyPolicy
from fastapi_keyauth.domain.limit_sets import limit_set
from fastapi_keyauth.domain.limits import Limit, LimitRules
from fastapi_keyauth.domain.permissions import Caller
from fastapi_keyauth.domain.windows import Algorithm
from fastapi_keyauth.errors import InvalidField
from fastapi_keyauth.http.problem_details import find_problem_type


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (
            lambda caller: caller.limit_bounds.check_hourly(5000),
            "Your keys may have an hourly_limit of 1000 at most; use",
        ),
        (lambda caller: caller.check_scopes(["b"]), "A key is given only what its creator holds; use"),
        (lambda caller: caller.choose_owner("bob"), "Omit owner_id: only admin may name an owner; use"),
    ],
    ids=["limit", "scopes", "owner"],
)
def test_a_grant_too_far_is_refused_with_its_reason(ask: Callable[[Caller], None], sentence: str) -> None:
    caller = Caller.of_session(SessionPrincipal("ada", frozenset({"a"})), default_limit=1000)
    with pytest.raises(InsufficientScope) as refused:
        ask(caller)
    detail = find_problem_type(refused.value).detail(refused.value, KeyAuthSettings())
    assert detail.startswith(sentence)
    assert detail.endswith(f" with the scopes that are required: {', '.join(refused.value.missing_scopes)}.")


NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = Limit(name="hour", limit=100, per="hour", algorithm="fixed_window")
TOKENS = Limit(name="tokens", limit=50, per="day", unit="tokens", algorithm="fixed_window")
SLIDING = HOUR.model_copy(update={"algorithm": "sliding_window"})


def principal(scopes: str, limits: Sequence[Limit] = (), hourly_limit: int | None = None) -> KeyPrincipal:
    return KeyPrincipal(
        "key1",
        "n",
        "ada",
        "live",
        frozenset(scopes.split()),
        {},
        None,
        hourly_limit,
        None,
        None,
        limit_set(tuple(limits), ()),
    )


def snapshot(**bounds: Any) -> KeySnapshot:
    whole = KeySnapshot(
        "key1", "n", "ada", "live", frozenset(), "", None, (), (), True, None, None, secret_id=1, secret_expires_at=None
    )
    return replace(whole, **bounds)


def by_key(
    scopes: str,
    *,
    default: int | None = 1000,
    limits: Sequence[Limit] = (),
    hourly_limit: int | None = None,
    defaults: Sequence[Limit] = (),
    algorithm: Algorithm = "fixed_window",
    **bounds: Any,
) -> Caller:
    rules = LimitRules(None, defaults, (), algorithm)
    return Caller.of_key(principal(scopes, limits, hourly_limit), snapshot(**bounds), default, rules)


def by_session(scopes: str, owners: dict[str, Any] | None = None, default: int | None = 1000) -> Caller:
    return Caller.of_session(SessionPrincipal("ada", frozenset(scopes.split())), default, owners)


def stored(**fields: Any) -> Key:
    whole = Key(
        "key2", "n", "ada", "live", "", ["a"], None, [], [], {}, "active", True, NOW, None, None, None, secrets=[]
    )
    return replace(whole, **fields)


def missing(act: Callable[[], object]) -> str:
    """Return "yes", or the scopes that were missing."""
    try:
        act()
    except InsufficientScope as refused:
        return " ".join(refused.missing_scopes)
    except (KeyNotFound, InvalidField) as refused:
        return type(refused).__name__
    return "yes"


@pytest.mark.parametrize(
    ("caller", "owner", "readable", "writable"),
    [
        (by_key("keys:read"), "ada", "yes", "keys:write"),
        (by_key("keys:write"), "ada", "keys:read", "yes"),
        (by_key("keys:read keys:write"), "ada", "yes", "yes"),
        (by_key("*"), "ada", "keys:read", "keys:write"),
        (by_key("keys:read keys:write"), "bob", "KeyNotFound", "KeyNotFound"),
        (by_key("admin"), "bob", "yes", "yes"),
        (by_session("*"), "ada", "yes", "yes"),
        (by_session("*"), "bob", "KeyNotFound", "KeyNotFound"),
        (by_session("admin"), "bob", "yes", "yes"),
        (by_session("*", {"team": ["keys:read"]}), "team", "yes", "keys:write"),
        (by_session("*", {"team": ["keys:read"]}), "ada", "KeyNotFound", "KeyNotFound"),
    ],
)
def test_what_a_caller_may_do_to_keys_of_an_owner(caller: Caller, owner: str, readable: str, writable: str) -> None:
    assert missing(lambda: caller.check_permission(owner, "keys:read")) == readable
    assert missing(lambda: caller.check_permission(owner, "keys:write")) == writable


@pytest.mark.parametrize(
    ("caller", "named", "chosen"),
    [
        (by_key("keys:write"), None, "ada"),
        (by_key("keys:read"), None, "keys:write"),
        (by_key("keys:write"), "ada", "admin"),
        (by_key("admin"), None, "ada"),
        (by_key("admin"), "bob", "bob"),
        (by_session("*"), None, "ada"),
        (by_session("*"), "bob", "admin"),
        (by_session("admin"), "bob", "bob"),
        (by_session("*", {"team": ["keys:write"]}), None, "team"),
        (by_session("*", {"team": ["keys:write"]}), "team", "team"),
        (by_session("*", {"team": ["keys:read"]}), "team", "keys:write"),
        (by_session("*", {"team": ["keys:write"]}), "bob", "keys:write"),
        (by_session("*", {"team": ["keys:write"], "ada": ["keys:write"]}), None, "ada"),
        (by_session("*", {"team": ["keys:write"], "crew": ["keys:write"]}), None, "InvalidField"),
        (by_session("*", {}), None, "InvalidField"),
        (by_session("admin", {}), None, "ada"),
    ],
)
def test_the_owner_of_a_request(caller: Caller, named: str | None, chosen: str) -> None:
    found: list[str] = []
    said = missing(lambda: found.append(caller.choose_owner(named)))
    assert (found[0] if said == "yes" else said) == chosen


@pytest.mark.parametrize(("owners", "sentence"), [({}, "act for no owner"), ({"a": (), "b": ()}, "must name one")])
def test_an_ambiguous_owner_is_explained(owners: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidField, match=sentence):
        assert by_session("*", owners).owner_id


@pytest.mark.parametrize(
    ("caller", "named", "listed"),
    [
        (by_session("*"), None, ["ada"]),
        (by_key("keys:read"), None, ["ada"]),
        (by_session("admin"), None, None),
        (by_session("admin"), "bob", ["bob"]),
        (by_session("*", {"team": ["keys:read"]}), "team", ["team"]),
    ],
)
def test_the_owners_whose_keys_are_listed(caller: Caller, named: str | None, listed: list[str] | None) -> None:
    assert caller.choose_owners(named) == listed
    assert (caller.visible_owner_ids is None) == caller.is_admin


@pytest.mark.parametrize(
    ("caller", "readable", "writable"),
    [
        (by_key("keys:read"), ["ada"], []),
        (by_key("keys:write"), [], ["ada"]),
        (by_key("admin"), None, None),
        (by_session("a"), ["ada"], ["ada"]),
        (by_session("a", {"team": ["keys:read"], "crew": ["keys:read", "keys:write"]}), ["team", "crew"], ["crew"]),
        (by_session("a", {}), [], []),
    ],
)
def test_the_owners_whose_keys_a_caller_may_read_or_change(
    caller: Caller, readable: list[str] | None, writable: list[str] | None
) -> None:
    assert (caller.find_owners("keys:read"), caller.find_owners("keys:write")) == (readable, writable)


def test_visible_owners_are_those_that_the_caller_acts_for() -> None:
    assert [*(by_session("*", {"team": ()}).visible_owner_ids or ())] == ["team"]


def test_the_history_names_the_caller() -> None:
    key, session = by_key("keys:write").actor("::1", "why"), by_session("admin").actor(None)
    assert (key.name, key.address, key.reason, key.is_admin, key.owners) == (
        "key:key1",
        "::1",
        "why",
        False,
        frozenset({"ada"}),
    )
    assert (session.name, session.is_admin) == ("user:ada", True)


@pytest.mark.parametrize(
    ("caller", "grantable", "default"),
    [
        (by_key("*"), "a", ["*"]),
        (by_key("a b"), "a b", ["a", "b"]),
        (by_key("a keys:read"), "a keys:read", ["a"]),
        (by_key("keys:read"), "keys:read", "InvalidField"),
        (by_key("admin"), "* a b keys:read keys:write admin", ["*"]),
        (by_session("a"), "a keys:read keys:write", ["a"]),
        (by_session("*"), "a b keys:read keys:write *", ["*"]),
    ],
)
def test_scopes_that_a_caller_may_grant(caller: Caller, grantable: str, default: list[str] | str) -> None:
    for scope in ("a", "keys:read", "keys:write", "admin"):
        expected = scope in grantable.split()
        assert caller.may_grant(scope) == expected, scope
        assert missing(lambda scope=scope: caller.check_scopes(["b", scope] if "b" in grantable else [scope])) == (  # type: ignore[misc]  # a default is no argument
            "yes" if expected else scope
        )
    found: list[list[str]] = []
    said = missing(lambda: found.append(caller.grantable_by_default()))
    assert (found[0] if said == "yes" else said) == default


@pytest.mark.parametrize(
    ("caller", "limit", "said"),
    [
        (by_session("*"), 1000, "yes"),
        (by_session("*"), 1001, "admin"),
        (by_session("*"), None, "yes"),
        (by_session("*", default=None), 10**9, "yes"),
        (by_session("admin"), 10**9, "yes"),
        (by_key("keys:write", hourly_limit=10), 10, "yes"),
        (by_key("keys:write", hourly_limit=10), 11, "admin"),
        (by_key("keys:write", hourly_limit=10), None, "admin"),
        (by_key("keys:write", default=None, hourly_limit=10), None, "admin"),
        (by_key("keys:write", default=None), None, "yes"),
        (by_key("admin", hourly_limit=10), 11, "yes"),
    ],
)
def test_the_highest_limit_that_a_caller_may_give(caller: Caller, limit: int | None, said: str) -> None:
    assert missing(lambda: caller.limit_bounds.check_hourly(limit)) == said


def test_a_refused_limit_names_the_lowest_bound() -> None:
    for caller in (by_key("keys:write", hourly_limit=10), by_key("keys:write", default=10, hourly_limit=1000)):
        with pytest.raises(InsufficientScope) as refused:
            caller.limit_bounds.check_hourly(2000)
        assert refused.value.reason == "Your keys may have an hourly_limit of 10 at most"


@pytest.mark.parametrize(
    ("caller", "limits", "said"),
    [
        (by_key("keys:write", limits=[TOKENS]), [TOKENS], "yes"),
        (by_key("keys:write", limits=[TOKENS]), [TOKENS.model_copy(update={"limit": 49})], "yes"),
        (by_key("keys:write", limits=[TOKENS]), [TOKENS.model_copy(update={"limit": 51})], "admin"),
        (by_key("keys:write", limits=[TOKENS]), [TOKENS.model_copy(update={"per": "hour"})], "admin"),
        (by_key("keys:write", limits=[TOKENS]), [TOKENS.model_copy(update={"unit": "images"})], "admin"),
        (by_key("keys:write", limits=[TOKENS]), [HOUR], "admin"),
        (by_key("keys:write", limits=[TOKENS]), [HOUR, TOKENS], "yes"),
        (by_key("keys:write", limits=[SLIDING]), [HOUR], "admin"),
        (by_key("keys:write", limits=[SLIDING]), [HOUR.model_copy(update={"limit": 51})], "admin"),
        (by_key("keys:write", limits=[SLIDING]), [HOUR.model_copy(update={"limit": 50})], "yes"),
        (by_key("keys:write", limits=[SLIDING]), [SLIDING], "yes"),
        (by_key("keys:write", limits=[HOUR]), [SLIDING], "yes"),
        (by_key("admin", limits=[TOKENS]), [], "yes"),
        (by_key("keys:write", defaults=[HOUR]), [TOKENS], "admin"),
        (by_key("keys:write", defaults=[HOUR]), [HOUR], "yes"),
        (by_session("*"), [], "yes"),
    ],
)
def test_limits_that_a_caller_may_give(caller: Caller, limits: list[Limit], said: str) -> None:
    assert missing(lambda: caller.limit_bounds.check(limits)) == said


@pytest.mark.parametrize(
    ("bound", "per", "most"),
    [
        ("hour", "minute", 16),  # 60 windows in one: 60 * 16 <= 1000
        ("hour", "second", 0),
        ("hour", 1800, 500),
        ("hour", 3600, 1000),
        ("hour", "day", 1000),
        ("hour", "month", 1000),
        ("hour", 7, 1),  # at most 516 windows share an hour: 515 in a row, and the part of another one
        ("hour", 5400, 500),  # an hour may lie across the end of such a window
        ("day", "hour", 41),
        ("month", "day", 32),
        ("month", "month", 1000),
        ("month", 604_800, 166),
        (604_800, "month", 500),
        ("sliding hour", "hour", 500),
        ("sliding hour", "minute", 16),
        ("sliding hour", "day", 500),
    ],
)
def test_limit_with_another_window_must_not_allow_more_than_the_bound(
    bound: str | int, per: str | int, most: int
) -> None:
    algorithm = "sliding_window" if str(bound).startswith("sliding") else "fixed_window"
    window = bound.removeprefix("sliding ") if isinstance(bound, str) else bound
    held = Limit.model_validate({"name": "held", "limit": 1000, "per": window, "algorithm": algorithm})
    caller = by_key("keys:write", limits=[held])
    for number, said in ((most, "yes"), (most + 1, "admin")):
        if number:
            given = Limit.model_validate({"name": "given", "limit": number, "per": per, "algorithm": "fixed_window"})
            assert missing(partial(caller.limit_bounds.check, [given])) == said


def test_limit_within_a_bound_never_fills_a_window_of_it_further() -> None:
    for length in range(1, 13):
        for bound_length in range(1, 13):
            starts = range(0, bound_length * length * 2, bound_length)
            shared = max((start + bound_length - 1) // length - start // length + 1 for start in starts)
            held = Limit(name="held", limit=100, per=bound_length, algorithm="fixed_window")
            caller = by_key("keys:write", limits=[held])
            for number in range(1, 101):
                given = Limit(name="given", limit=number, per=length, algorithm="fixed_window")
                if missing(partial(caller.limit_bounds.check, [given])) == "yes":
                    assert number * shared <= 100


@pytest.mark.parametrize(
    ("caller", "limit", "limits"),
    [
        (by_session("*"), None, None),
        (by_key("keys:write", hourly_limit=10), 10, None),
        (by_key("keys:write", hourly_limit=1000), None, None),
        (by_key("keys:write", hourly_limit=2000), None, None),
        (by_key("admin", hourly_limit=10, limits=[TOKENS]), None, None),
        (by_key("keys:write", limits=[TOKENS]), None, [TOKENS]),
        (by_key("keys:write", limits=[SLIDING], hourly_limit=100), 100, [SLIDING]),
        (by_key("keys:write", limits=[SLIDING], hourly_limit=100, algorithm="sliding_window"), 100, None),
        (by_key("keys:write", limits=[TOKENS], defaults=[HOUR]), None, [TOKENS, HOUR]),
        (by_key("keys:write", limits=[TOKENS], defaults=[TOKENS.model_copy(update={"limit": 60})]), None, [TOKENS]),
    ],
)
def test_the_limits_of_a_key_that_is_created_without_limits(
    caller: Caller, limit: int | None, limits: list[Limit] | None
) -> None:
    assert (caller.limit_bounds.default_hourly(), caller.limit_bounds.default_limits()) == (limit, limits)


@pytest.mark.parametrize(
    ("caller", "key", "said"),
    [
        (by_session("a"), stored(), "yes"),
        (by_session("a"), stored(owner_id="bob"), "KeyNotFound"),
        (by_session("b"), stored(), "a"),
        (by_key("a keys:read"), stored(), "keys:write"),
        (by_key("a keys:write"), stored(), "yes"),
        (by_key("a keys:write", hourly_limit=10), stored(hourly_limit=10), "yes"),
        (by_key("a keys:write", hourly_limit=10), stored(hourly_limit=11), "admin"),
        (by_key("a keys:write", limits=[TOKENS]), stored(), "admin"),
        (by_key("a keys:write", limits=[TOKENS]), stored(limits=(TOKENS,)), "yes"),
        (by_key("a keys:write", environment="test"), stored(), "admin"),
        (by_key("a keys:write", expires_at=NOW), stored(), "admin"),
        (by_key("a keys:write", expires_at=NOW), stored(expires_at=NOW), "yes"),
        (by_key("a keys:write", expires_at=NOW), stored(expires_at=NOW + DAY), "admin"),
        (by_key("a keys:write", allowed_origins=("https://a.example",)), stored(), "admin"),
        (by_key("a keys:write", allowed_ips=("10.0.0.0/8",)), stored(allowed_ips=["10.1.0.0/16"]), "yes"),
        (by_key("a keys:write", allowed_ips=("10.0.0.0/8",)), stored(allowed_ips=["11.0.0.0/8"]), "admin"),
        (by_key("admin", limits=[TOKENS], hourly_limit=1, environment="test"), stored(owner_id="bob"), "yes"),
    ],
)
def test_keys_that_a_caller_may_change(caller: Caller, key: Key, said: str) -> None:
    assert missing(lambda: caller.check_change(key)) == said


def complete(caller: Caller, **fields: Any) -> NewKey:
    return caller.complete(NewKey(name="n", **fields), "prod", NOW, KeyPolicy())


def test_a_new_key_inherits_the_bounds_of_the_key_that_creates_it() -> None:
    lists: dict[str, Any] = {"allowed_origins": ("https://a.example",), "allowed_ips": ("10.0.0.0/8",)}
    caller = by_key("a keys:write", hourly_limit=10, environment="test", expires_at=NOW, **lists)
    new = complete(caller)
    assert (new.owner_id, new.scopes, new.hourly_limit, new.environment) == ("ada", ["a"], 10, "test")
    assert (new.expires_at, new.allowed_origins, new.allowed_ips) == (NOW, ["https://a.example"], ["10.0.0.0/8"])
    caller.check_new(new)
    chosen = complete(caller, scopes=["b"], hourly_limit=5, environment="live", expires_in_s=60, allowed_ips=["::1"])
    assert (chosen.scopes, chosen.hourly_limit, chosen.environment) == (["b"], 5, "live")
    assert (chosen.expires_at, chosen.expires_in_s) == (NOW + timedelta(seconds=60), None)
    assert chosen.allowed_ips == ["::1"]


@pytest.mark.parametrize("caller", [by_session("a"), by_key("a admin", environment="test", expires_at=NOW)])
def test_a_session_and_admin_pass_on_no_bounds(caller: Caller) -> None:
    new = complete(caller)
    assert (new.environment, new.expires_at, new.hourly_limit) == ("prod", None, None)
    assert (new.allowed_origins, new.allowed_ips, new.limits) == ([], [], None)


def test_a_list_of_limits_is_all_that_a_key_has() -> None:
    caller = by_key("a keys:write", hourly_limit=10)
    assert complete(caller, limits=[TOKENS]).hourly_limit is None
    inherited = complete(by_key("a keys:write", limits=[TOKENS], hourly_limit=10))
    assert (inherited.limits, inherited.hourly_limit) == ([TOKENS], None)
    assert complete(by_key("a keys:write", limits=[TOKENS]), hourly_limit=5).limits is None


@pytest.mark.parametrize(
    ("caller", "fields", "said"),
    [
        (by_session("a"), {"owner_id": "ada"}, "yes"),
        (by_session("a"), {"owner_id": "bob"}, "keys:write"),
        (by_session("a"), {}, "keys:write"),
        (by_session("admin"), {"owner_id": "bob"}, "yes"),
        (by_key("a keys:read"), {"owner_id": "ada"}, "keys:write"),
        (by_session("a"), {"owner_id": "ada", "scopes": ["b"]}, "b"),
        (by_session("a"), {"owner_id": "ada", "hourly_limit": 1001}, "admin"),
        (by_key("keys:write", limits=[TOKENS]), {"owner_id": "ada"}, "admin"),
        (by_key("keys:write", limits=[TOKENS], defaults=[TOKENS]), {"owner_id": "ada"}, "yes"),
        (by_key("keys:write", limits=[TOKENS]), {"owner_id": "ada", "hourly_limit": 5}, "admin"),
        (by_key("keys:write", limits=[HOUR]), {"owner_id": "ada", "hourly_limit": 100}, "yes"),
        (by_key("keys:write", limits=[HOUR]), {"owner_id": "ada", "hourly_limit": 101}, "admin"),
        (by_key("keys:write", limits=[SLIDING]), {"owner_id": "ada", "hourly_limit": 100}, "admin"),
        (
            by_key("keys:write", limits=[SLIDING], algorithm="sliding_window"),
            {"owner_id": "ada", "hourly_limit": 100},
            "yes",
        ),
        (by_key("keys:write", limits=[TOKENS]), {"owner_id": "ada", "limits": [TOKENS]}, "yes"),
        (by_key("keys:write", limits=[TOKENS]), {"owner_id": "ada", "limits": []}, "admin"),
        (by_key("keys:write", environment="test"), {"owner_id": "ada", "environment": "live"}, "admin"),
        (by_key("keys:write", environment="test"), {"owner_id": "ada", "environment": "test"}, "yes"),
    ],
)
def test_keys_that_a_caller_may_create(caller: Caller, fields: dict[str, Any], said: str) -> None:
    new = NewKey(name="n", **({"environment": "live"} | fields))
    assert missing(lambda: caller.check_new(new)) == said


@pytest.mark.parametrize(
    ("caller", "said"),
    [(by_session("*"), "admin"), (by_key("* keys:write"), "admin"), (by_session("admin"), "yes")],
)
def test_only_admin_creates_keys_that_are_exempt_from_the_policy(caller: Caller, said: str) -> None:
    new = NewKey(name="n", owner_id="ada", hourly_limit=1, exempt_from_policy=True)
    assert missing(lambda: caller.check_new(new)) == said


def test_each_network_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = tuple(f"10.{number}.0.0/16" for number in range(100))
    inner = [f"10.99.{number}.0/24" for number in range(100)]
    parsed: list[str] = []
    real = ip_addresses.parse_network

    def parse_network(text: str) -> ip_addresses.IPNetwork:
        parsed.append(text)
        return real(text)

    ip_addresses.parse_networks.cache_clear()
    for module in (ip_addresses, bounds):
        monkeypatch.setattr(module, "parse_network", parse_network, raising=False)
    caller = by_key("a keys:write", allowed_ips=outer)
    for _ in range(2):  # before the secret is hashed, and in the transaction
        assert missing(lambda: caller.check_change(stored(allowed_ips=inner))) == "yes"
    assert len(parsed) == 200


@pytest.mark.parametrize(
    ("own", "listed", "said"),
    [
        ("10.0.0.0/8 2001:db8::/32", "10.1.2.3 2001:db8:1::/48", "yes"),
        ("10.0.0.0/16 10.1.0.0/24", "10.1.0.0/24 10.0.9.0/24", "yes"),
        ("10.1.0.0/24", "10.1.0.0/23", "admin"),
        ("10.1.0.0/24", "10.1.0.1 10.1.1.1", "admin"),
        ("0.0.0.0/0", "::/0", "admin"),
        ("::/0", "0.0.0.1", "admin"),
        ("0.0.0.0/0", "::ffff:10.0.0.1", "yes"),
        ("10.0.0.1", "10.0.0.1", "yes"),
    ],
)
def test_networks_that_lie_in_those_of_the_caller(own: str, listed: str, said: str) -> None:
    caller = by_key("a keys:write", allowed_ips=tuple(own.split()))
    assert missing(lambda: caller.check_change(stored(allowed_ips=listed.split()))) == said


@pytest.mark.parametrize(("scopes", "said"), [("admin", "yes"), ("* keys:read keys:write", "admin")])
def test_routes_for_admin_alone(scopes: str, said: str) -> None:
    assert missing(by_session(scopes).check_admin) == said
    assert missing(by_key(scopes).check_admin) == said
