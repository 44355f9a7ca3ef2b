"""OpenTelemetry: observable counters, histograms, and spans below those of the requests.

Imported only if ``opentelemetry-api`` is installed; see ``providers.py``. Without a configured SDK nothing is exported.
OpenTelemetry reads the counters when it collects metrics, times are taken once for each call to Redis and each hash,
and spans are created only if the request already has one that is recorded.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Tracer, TracerProvider
from typing_extensions import override

from fastapi_keyauth.telemetry.counters import Counters, Metrics

SCOPE = "fastapi_keyauth"
PREFIX = "keyauth.key_prefix"
"""The attribute that distinguishes several KeyAuth in one process."""

# Seconds. A call to Redis on the same network takes well under a millisecond, its timeout is half a second by default.
_CALL_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_HASH_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Board:
    """Instruments of one meter provider, and the counters that they read, by key prefix.

    OpenTelemetry identifies an instrument by its name and drops the callback of a second one. So each provider has one
    set of instruments, and all KeyAuth with the same prefix in a process share their counters.
    """

    def __init__(self, provider: MeterProvider | None) -> None:
        meter = metrics.get_meter(SCOPE, _version(), provider)
        self._counters: dict[str, Counters] = {}
        self.call_duration = meter.create_histogram(
            "keyauth.limiter.call.duration",
            "s",
            "Duration of a call to Redis that carried the questions of requests.",
            explicit_bucket_boundaries_advisory=_CALL_BOUNDS_S,
        )
        self.call_requests = meter.create_histogram(
            "keyauth.limiter.call.requests",
            "{request}",
            "Requests whose questions one call to Redis carried.",
            explicit_bucket_boundaries_advisory=_BATCH_BOUNDS,
        )
        self.hash_duration = meter.create_histogram(
            "keyauth.hash.duration",
            "s",
            "Duration of an Argon2 run, without the time in the queue.",
            explicit_bucket_boundaries_advisory=_HASH_BOUNDS_S,
        )

        def observe(
            name: str,
            unit: str,
            description: str,
            read: Callable[[Counters], Iterable[_Reading]],
            create: Callable[..., object] = meter.create_observable_counter,
        ) -> None:
            def callback(_options: CallbackOptions) -> Iterator[Observation]:
                for prefix, counters in list(self._counters.items()):
                    for value, attributes in read(counters):
                        yield Observation(value, {PREFIX: prefix, **attributes})

            create(name, [callback], unit, description)

        observe("keyauth.requests", "{request}", "Requests with an API key, by outcome.", _outcomes)
        observe("keyauth.in_flight.ended", "{request}", "Requests that were ended while they ran, by reason.", _ended)
        observe("keyauth.cache.lookups", "{lookup}", "Lookups of keys in the cache, by result.", _lookups)
        observe("keyauth.tickets", "{secret}", "Secrets verified by a ticket in place of Argon2.", _tickets)
        observe("keyauth.outages", "{outage}", "Outages of Redis and of the database.", _outages)
        observe("keyauth.recoveries", "{recovery}", "Recoveries from outages.", _recoveries)
        observe(
            "keyauth.outages.active",
            "{outage}",
            "Current outages.",
            _current_outages,
            create=meter.create_observable_up_down_counter,
        )
        observe("keyauth.leases", "{lease}", "Leases of units that were granted.", _leases)
        observe("keyauth.lease.units", "{request}", "Requests that leases allow, by what became of them.", _lease_units)
        observe("keyauth.lease.trips_saved", "{call}", "Calls to Redis that leases made unnecessary.", _saved_trips)
        observe("keyauth.events.dropped", "{event}", "Events that on_event was too slow for.", _dropped)

    def counts_of(self, prefix: str) -> Counters:
        """Return the counters of all KeyAuth with this prefix."""
        return self._counters.setdefault(prefix, Counters())


_Reading = tuple[int, dict[str, str]]


def _outcomes(counters: Counters) -> Iterator[_Reading]:
    yield counters.admitted_from_memory + counters.admitted_by_row, {"keyauth.outcome": "admitted"}
    for code, count in dict(counters.refused).items():
        yield count, {"keyauth.outcome": code}


def _ended(counters: Counters) -> Iterator[_Reading]:
    return ((count, {"keyauth.reason": code}) for code, count in dict(counters.ended).items())


def _lookups(counters: Counters) -> Iterator[_Reading]:
    yield counters.admitted_from_memory, {"keyauth.cache.result": "hit"}
    yield counters.missed, {"keyauth.cache.result": "miss"}
    yield counters.stale, {"keyauth.cache.result": "stale"}


def _tickets(counters: Counters) -> Iterator[_Reading]:
    yield counters.ticketed, {}


def _outages(counters: Counters) -> Iterator[_Reading]:
    return ((count, {"keyauth.part": part}) for part, count in dict(counters.outages).items())


def _recoveries(counters: Counters) -> Iterator[_Reading]:
    return ((count, {"keyauth.part": part}) for part, count in dict(counters.recoveries).items())


def _current_outages(counters: Counters) -> Iterator[_Reading]:
    # Both parts, also without any outage: an alarm needs a zero to return to.
    for part in ("redis", "database"):
        yield counters.outages.get(part, 0) - counters.recoveries.get(part, 0), {"keyauth.part": part}


def _leases(counters: Counters) -> Iterator[_Reading]:
    yield counters.leases_granted, {}


def _lease_units(counters: Counters) -> Iterator[_Reading]:
    outcome = "keyauth.lease.outcome"
    yield counters.lease_units, {outcome: "leased"}
    yield counters.lease_used, {outcome: "used"}
    yield counters.lease_returned, {outcome: "returned"}
    yield counters.lease_forfeited, {outcome: "forfeited"}


def _saved_trips(counters: Counters) -> Iterator[_Reading]:
    yield counters.lease_trips_saved, {}


def _dropped(counters: Counters) -> Iterator[_Reading]:
    yield counters.events_dropped, {}


# State of the module, like OpenTelemetry's own providers, which belong to the whole process.
_boards: WeakKeyDictionary[MeterProvider, Board] = WeakKeyDictionary()
_global_boards: list[Board] = []


def _board_of(provider: MeterProvider | None) -> Board:
    if provider is None or provider is metrics.get_meter_provider():
        if not _global_boards:
            _global_boards.append(Board(None))
        return _global_boards[0]
    if provider not in _boards:
        _boards[provider] = Board(provider)
    return _boards[provider]


class OpenTelemetryInstruments(Metrics):
    """Metrics and spans of one KeyAuth; see the module.

    Args:
        key_prefix: Prefix that distinguishes several KeyAuth in a process.
        meter_provider: Meter provider. None: the global one.
        tracer_provider: Tracer provider. None: the global one.
    """

    def __init__(
        self, key_prefix: str, meter_provider: MeterProvider | None, tracer_provider: TracerProvider | None
    ) -> None:
        board = _board_of(meter_provider)
        super().__init__(board.counts_of(key_prefix))
        self._board = board
        self._tracer_provider = tracer_provider
        self._tracer: Tracer | None = None
        self._attributes = {PREFIX: key_prefix}

    @override
    def start(self) -> None:
        provider = self._tracer_provider or trace.get_tracer_provider()
        # OpenTelemetry's providers while none is configured: spans that are not exported are not worth creating.
        is_idle = isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer = None if is_idle else trace.get_tracer(SCOPE, _version(), provider)

    @override
    def answered(self, questions: int, seconds: float, error: str | None) -> None:
        attributes = self._attributes if error is None else {**self._attributes, "error.type": error}
        self._board.call_duration.record(seconds, attributes)
        self._board.call_requests.record(questions, self._attributes)

    @override
    def hashed(self, operation: str, seconds: float) -> None:
        self._board.hash_duration.record(seconds, {**self._attributes, "keyauth.hash.operation": operation})

    @override
    def span(self, name: str, key_id: str | None = None) -> AbstractContextManager[object]:
        if self._tracer is None or not trace.get_current_span().is_recording():
            return nullcontext()
        attributes = self._attributes if key_id is None else {**self._attributes, "keyauth.key_id": key_id}
        # The traceback of an exception may quote credentials; its type is enough.
        return self._tracer.start_as_current_span(name, attributes=attributes, record_exception=False)

    @property
    @override
    def is_tracing(self) -> bool:
        return self._tracer is not None


def _version() -> str:
    try:
        return version("fastapi-keyauth")
    except PackageNotFoundError:  # its files were copied into another project
        return ""
