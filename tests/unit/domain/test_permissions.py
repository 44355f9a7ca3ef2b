"""What a caller is told who would give more than it has."""

from collections.abc import Callable

import pytest

from fastapi_keyauth import InsufficientScope, KeyAuthSettings, SessionPrincipal
from fastapi_keyauth.domain.permissions import Caller
from fastapi_keyauth.http.problem_details import find_problem_type


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda caller: caller.check_limit(5000), "Your keys may have an hourly_limit of 1000 at most; use"),
        (lambda caller: caller.check_scopes(["b"]), "A key is given only what its creator holds; use"),
        (lambda caller: caller.choose_owner("bob"), "Leave owner_id out: only admin names an owner; use"),
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
