"""What is mutated, and which tests must notice.

Fast tests come first, because the first failure ends a run.
"""

from __future__ import annotations

from dataclasses import dataclass

_ONE_STACK = "not valkey and not redis6 and not postgres"


@dataclass(frozen=True)
class Target:
    """A file of the package and the tests that must notice a change of it.

    Attributes:
        path: The file, below ``src/fastapi_keyauth``.
        tests: Paths for pytest.
        keyword: For pytest's ``-k``: by default the stack that needs no server.
    """

    path: str
    tests: tuple[str, ...]
    keyword: str = _ONE_STACK


def _contract(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_{name}.py" for name in names)


TARGETS = (
    Target("domain/permissions.py", ("tests/unit/domain/test_permissions.py", *_contract("management_grants"))),
    Target(
        "domain/ip_addresses.py",
        ("tests/unit/domain", *_contract("addresses", "blocking", "order_of_checks", "settings")),
    ),
    Target("auth/credentials.py", _contract("credentials", "order_of_checks", "challenges_and_problems")),
    Target(
        "auth/authenticator.py",
        (
            *_contract("order_of_checks", "pairs_of_findings", "key_or_session", "blocking", "outages"),
            "tests/unit/auth",
        ),
    ),
    Target(
        "auth/verifier.py",
        (*_contract("order_of_checks", "changes_hold_at_once", "races"), "tests/unit/auth", "tests/model"),
    ),
    Target("http/cors.py", _contract("cors", "cors_beside_the_hosts")),
    Target(
        "keys/service.py",
        (
            *_contract("management_changes", "management", "python_api", "races", "changes_hold_at_once", "outages"),
            "tests/unit/keys",
        ),
    ),
    Target("keys/outbox.py", ("tests/unit/limiter/test_redis_outage.py", *_contract("changes_hold_at_once")), ""),
    Target("limiter/memory.py", ("tests/unit/limiter/test_limiters.py", *_contract("rate_limit", "blocking"))),
    *(
        Target(
            f"limiter/redis/lua/{name}.lua",
            ("tests/unit/limiter/test_limiters.py", *_contract("rate_limit", "blocking")),
            "valkey",
        )
        for name in ("now", "take", "fail", "blocked", "changed", "unblock")
    ),
)
