"""OpenTelemetry: lets its metrics read our counters, and puts spans below those of the requests.

Imported only where ``opentelemetry-api`` is installed; see ``providers.py``. Without a configured SDK nothing is
exported: counters are integers that OpenTelemetry reads when it collects (observable counters), times are taken once
for each call to Redis and each hash, and spans are made only where the request already has one that is recorded.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Tracer, TracerProvider

from fastapi_keyauth.telemetry.counters import Counters, Metrics

SCOPE = "fastapi_keyauth"
PREFIX = "keyauth.key_prefix"
"""The attribute that tells several KeyAuth in one process apart."""

# Seconds. A call to Redis on the same network takes well under a millisecond, its timeout is half a second by default.
_CALL_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_HASH_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Board:
    """The instruments of one meter provider, and what they read: counters by key prefix.

    OpenTelemetry knows an instrument by its name and drops the callback of a second one. So there is one set of
    instruments for each provider, and all KeyAuth with the same prefix in a process add to the same counters.
    """

    def __init__(self, provider: MeterProvider | None) -> None:
        meter = metrics.get_meter(SCOPE, _version(), provider)
        self._counters: dict[str, Counters] = {}
        self.call_duration = meter.create_histogram(
            "keyauth.limiter.call.duration",
            "s",
            "How long a call to Redis took that carried questions of requests.",
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
            "How long Argon2 ran, without the wait for its turn.",
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

        observe("keyauth.requests", "{request}", "Requests by what came of their API key.", _outcomes)
        observe("keyauth.cache.lookups", "{lookup}", "Whether the key had to be read from the database.", _lookups)
        observe("keyauth.outages", "{outage}", "Times that Redis or the database was lost.", _outages)
        observe("keyauth.recoveries", "{recovery}", "Times that it was found again.", _recoveries)
        observe(
            "keyauth.outages.active",
            "{outage}",
            "What is away now.",
            _away,
            create=meter.create_observable_up_down_counter,
        )
        observe("keyauth.events.dropped", "{event}", "Events that on_event had no time for.", _dropped)

    def counts_of(self, prefix: str) -> Counters:
        """The counters of all KeyAuth with this prefix."""
        return self._counters.setdefault(prefix, Counters())


_Reading = tuple[int, dict[str, str]]


def _outcomes(counters: Counters) -> Iterator[_Reading]:
    yield counters.admitted_from_memory + counters.admitted_by_row, {"keyauth.outcome": "admitted"}
    for code, count in dict(counters.refused).items():
        yield count, {"keyauth.outcome": code}


def _lookups(counters: Counters) -> Iterator[_Reading]:
    yield counters.admitted_from_memory, {"keyauth.cache.result": "hit"}
    yield counters.missed, {"keyauth.cache.result": "miss"}
    yield counters.stale, {"keyauth.cache.result": "stale"}


def _outages(counters: Counters) -> Iterator[_Reading]:
    return ((count, {"keyauth.part": part}) for part, count in dict(counters.outages).items())


def _recoveries(counters: Counters) -> Iterator[_Reading]:
    return ((count, {"keyauth.part": part}) for part, count in dict(counters.recoveries).items())


def _away(counters: Counters) -> Iterator[_Reading]:
    # Both, and also where nothing was ever away: an alarm wants a nought to fall back to.
    for part in ("redis", "database"):
        yield counters.outages.get(part, 0) - counters.recoveries.get(part, 0), {"keyauth.part": part}


def _dropped(counters: Counters) -> Iterator[_Reading]:
    yield counters.events_dropped, {}


# State of the module, like OpenTelemetry's own providers, which are of the whole process.
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
    """See the module.

    Args:
        key_prefix: tells several KeyAuth of a process apart.
        meter_provider, tracer_provider: None: the global ones.
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

    def start(self) -> None:
        """See ``Metrics``."""
        provider = self._tracer_provider or trace.get_tracer_provider()
        # What OpenTelemetry gives out while nobody has set one up. Spans that go nowhere are not worth making.
        is_idle = isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer = None if is_idle else trace.get_tracer(SCOPE, _version(), provider)

    def answered(self, questions: int, seconds: float, error: str | None) -> None:
        """See ``Metrics``."""
        attributes = self._attributes if error is None else {**self._attributes, "error.type": error}
        self._board.call_duration.record(seconds, attributes)
        self._board.call_requests.record(questions, self._attributes)

    def hashed(self, operation: str, seconds: float) -> None:
        """See ``Metrics``."""
        self._board.hash_duration.record(seconds, {**self._attributes, "keyauth.hash.operation": operation})

    def span(self, name: str, key_id: str | None = None) -> AbstractContextManager[object]:
        """See ``Metrics``."""
        if self._tracer is None or not trace.get_current_span().is_recording():
            return nullcontext()
        attributes = self._attributes if key_id is None else {**self._attributes, "keyauth.key_id": key_id}
        # An exception's traceback may quote what it passed through; its type is enough.
        return self._tracer.start_as_current_span(name, attributes=attributes, record_exception=False)

    @property
    def is_tracing(self) -> bool:
        """See ``Metrics``."""
        return self._tracer is not None


def _version() -> str:
    try:
        return version("fastapi-keyauth")
    except PackageNotFoundError:  # its files were copied into another project
        return ""
