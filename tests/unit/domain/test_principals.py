import copy
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime

import pytest

from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.limit_sets import NO_LIMITS, LimitSet, limit_set
from fastapi_keyauth.domain.principals import KeyPrincipal, principal_of
from tests.helpers.limits import hourly, resolved

END_S = 1_800_003_600


def snapshot(limits: LimitSet = NO_LIMITS, metadata_json: str = "") -> KeySnapshot:
    return KeySnapshot(
        "k", "name", "alice", "live", frozenset({"read"}), metadata_json, 5, (), (), True, None, None, 1, None, limits
    )


def test_a_prepared_principal_equals_one_that_is_built_field_by_field() -> None:
    limits = limit_set(hourly(5), ())
    principal = principal_of(snapshot(limits, '{"plan": "gold"}'), (3, 60, END_S))
    fixed = ("k", "name", "alice", "live", frozenset({"read"}), {"plan": "gold"}, None, 5)
    built = KeyPrincipal(*fixed, 3, datetime.fromtimestamp(END_S, UTC), limits, (3, 60, END_S))
    assert principal == built
    assert repr(principal) == repr(built)
    assert hash(replace(principal, metadata=())) == hash(replace(built, metadata=()))  # type: ignore[arg-type]
    assert all(getattr(principal, field.name) == getattr(built, field.name) for field in fields(built))
    assert type(principal) is KeyPrincipal
    assert copy.deepcopy(principal_of(snapshot(limits, '{"plan": "gold"}'), (3, 60, END_S))) == built
    with pytest.raises(FrozenInstanceError):
        principal.id = "other"  # type: ignore[misc]


def test_fields_that_are_computed_when_they_are_read_are_computed_once() -> None:
    principal = principal_of(snapshot(metadata_json='{"plan": "gold"}'), ())
    assert principal.metadata is principal.metadata
    assert principal_of(snapshot(metadata_json='{"plan": "gold"}'), ()).metadata is not principal.metadata
    assert not hasattr(principal, "plan")


def test_a_principal_without_a_limit_of_requests_has_nothing_remaining() -> None:
    for limits, states in ((NO_LIMITS, ()), (limit_set((resolved(limit=9, unit="tokens"),), ()), (7, 60, END_S))):
        principal = principal_of(snapshot(limits), states)
        assert (principal.remaining, principal.reset_at) == (None, None)
