"""Mutated files, and the tests that must notice.

Unit tests run first: most mutants end there, and a mutant costs about a second then.
"""

from __future__ import annotations

from dataclasses import dataclass

_ONE_STACK = "not valkey and not redis6 and not postgres and not cluster"

_MEMORY = f"{_ONE_STACK} or test_counters and valkey"
"""Also the comparison of the limiter in memory with the one on Redis, and of both with a model."""


@dataclass(frozen=True)
class Target:
    """A file of the package and the tests that must notice a change of it.

    Attributes:
        path: The file, below ``src/fastapi_keyauth``.
        units: Paths for pytest, of tests that take a second or two together.
        others: Paths for pytest, of tests that run only if the first ones pass.
        keyword: For pytest's ``-k``: by default the stack that needs no server. Empty: all tests.
    """

    path: str
    units: tuple[str, ...]
    others: tuple[str, ...] = ()
    keyword: str = _ONE_STACK

    @property
    def keeps_server(self) -> bool:
        """Whether all mutants are tested on one server, by forks of a process that has collected the tests."""
        return self.path.endswith(".lua") and self.keyword == "valkey"

    @property
    def tests(self) -> tuple[str, ...]:
        """All paths."""
        return self.units + self.others


def _contract(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_{name}.py" for name in names)


_LIMITERS = ("tests/unit/limiter/test_limiters.py",)
_LEASE_TESTS = (
    *(f"lease_{name}" for name in ("addresses", "terms", "book", "balances", "demand", "clock")),
    *("allowances", "renewals", "renewal_demand"),
)
_COUNTERS = ("tests/unit/limiter/test_counters.py",)
_TAKE = ("tests/unit/limiter/test_take_scripts.py",)
_LEASES = ("tests/unit/limiter/test_lease_scripts.py",)

TARGETS = (
    Target(
        "domain/permissions.py",
        ("tests/unit/domain/test_permissions.py",),
        _contract("management_grants"),
    ),
    Target("domain/ip_addresses.py", ("tests/unit/domain/test_ip_addresses.py",), _contract("addresses")),
    Target(
        "auth/credentials.py",
        ("tests/unit/auth/test_credentials.py",),
        _contract("credentials"),
    ),
    Target("http/cors.py", ("tests/unit/http/test_cors.py",), _contract("cors")),
    Target("http/routers/bodies.py", ("tests/unit/http/test_bodies.py",)),
    Target(
        "auth/verifier.py",
        tuple(f"tests/unit/auth/test_{name}.py" for name in ("verifier", "freshness", "verify_inactive")),
        ("tests/unit/keys/test_importer.py", "tests/unit/auth/test_bounds.py", *_contract("order_of_checks")),
    ),
    Target(
        "auth/authenticator.py",
        ("tests/unit/auth/test_authenticator.py",),
        (
            "tests/unit/keys/test_importer.py",
            *_contract("costs", "order_of_checks"),
            "tests/unit/auth/test_freshness.py",
            *_contract("key_or_session", "limits", "blocking"),
        ),
    ),
    Target(
        "auth/session_checks.py",
        ("tests/unit/auth/test_session_checks.py",),
        _contract("order_of_checks", "key_or_session"),
    ),
    Target(
        "keys/outbox.py",
        ("tests/unit/keys/test_outbox.py",),
        ("tests/unit/auth/test_freshness.py",),
    ),
    Target(
        "keys/management.py",
        ("tests/unit/keys/test_management.py", "tests/unit/keys/test_management_checks.py"),
        (*_contract("management_changes", "management", "management_validation", "limits"),),
    ),
    Target("auth/tickets.py", ("tests/unit/auth/test_tickets.py",), keyword=""),
    Target("limiter/memory_allowance.py", ("tests/unit/limiter/test_allowances.py",), _LIMITERS),
    Target(
        "limiter/memory.py",
        (*_LIMITERS, "tests/unit/limiter/test_memory.py", "tests/unit/limiter/test_allowances.py"),
        (*_COUNTERS, *_contract("limits")),
        _MEMORY,
    ),
    Target(
        "limiter/holders.py",
        ("tests/unit/limiter/test_holders.py",),
        (*_LIMITERS, *_COUNTERS, *_contract("limits")),
        _MEMORY,
    ),
    Target("limiter/counters.py", _LIMITERS, (*_COUNTERS, *_contract("limits")), _MEMORY),
    *(
        Target(f"limiter/redis/lua/{name}.lua", (*_TAKE, *_LEASES), (*_LIMITERS, *_COUNTERS), "valkey")
        for name in ("take", "take_others")
    ),
    Target("limiter/redis/lua/changed.lua", _LIMITERS, (*_LEASES, *_COUNTERS), "valkey"),
    *(Target(f"limiter/redis/lua/{name}.lua", _LIMITERS, _COUNTERS, "valkey") for name in ("fail", "now")),
    # Only a cluster needs these scripts.
    *(Target(f"limiter/redis/lua/{name}.lua", _LIMITERS, keyword="cluster") for name in ("unblock", "blocked")),
    *(
        Target(
            f"limiter/leases/{module}.py",
            tuple(f"tests/unit/limiter/test_{name}.py" for name in _LEASE_TESTS),
            ("tests/simulation/test_leases.py",),
            f"{_ONE_STACK} and not test_no_schedule_breaks_a_promise",  # random schedules take 15 seconds of CPU time
        )
        for module in ("addresses", "allowance", "terms", "book", "balances", "demand", "clock")
    ),
)
