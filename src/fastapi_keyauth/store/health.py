"""The availability of the database, in one place: a circuit breaker, so that requests do not all wait for a timeout.

A statement that fails is a suspicion and no more: it may have been slow, met a deadlock, or found all connections busy.
It is confirmed by a probe over a connection of its own. If that fails too, and no row that a request reads has arrived
meanwhile, the breaker opens, and what needs the database fails immediately.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi_keyauth.concurrency.circuit_breaker import CircuitBreaker
from fastapi_keyauth.telemetry.observer import Observer

PROBE_EVERY_S = 0.5
"""Seconds between probes during an outage."""
PROBE_TIMEOUT_S = 1.5


def build_breaker(
    probe: Callable[[], Coroutine[Any, Any, None]], observer: Observer | None, on_recovery: Callable[[], None]
) -> CircuitBreaker:
    """Create the breaker of a database.

    Args:
        probe: Sends a statement; raises if there is no response.
        observer: Notified when an outage begins and ends, if given.
        on_recovery: Called when an outage ends, before the next statement.
    """

    def on_open(reason: str) -> None:
        if observer is not None:
            observer.report_outage("database", reason)

    def on_close() -> None:
        on_recovery()
        if observer is not None:
            observer.report_recovery("database")

    return CircuitBreaker(
        "database",
        probe,
        "whatever needs it is refused",
        on_open,
        on_close,
        probe_timeout_s=PROBE_TIMEOUT_S,
        probe_every_s=PROBE_EVERY_S,
        confirms_failures=True,
        describe=describe,
    )


def describe(error: BaseException) -> str:
    """Return the type and the first line of the root of an error. The engine hides parameters of statements."""
    root = getattr(error, "orig", None) or error
    lines = str(root).splitlines()
    return f"{type(root).__name__}: {lines[0] if lines else 'no answer in time'}"
