"""Where metrics and spans go: OpenTelemetry, where ``opentelemetry-api`` is installed, or nowhere."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.telemetry.counters import Metrics

try:
    from fastapi_keyauth.telemetry import opentelemetry as otel
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("opentelemetry"):
        raise
    otel = None  # type: ignore[assignment]  # a module or nothing

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Providers of one's own, for ``KeyAuth(telemetry=...)``.

    Attributes:
        meter_provider: None: OpenTelemetry's global one, also if it is set later.
        tracer_provider: None: the global one, if it is set by the time the application starts.
    """

    meter_provider: "MeterProvider | None" = None
    tracer_provider: "TracerProvider | None" = None


def build_metrics(key_prefix: str, telemetry: Telemetry | bool) -> Metrics:
    """The metrics of one KeyAuth.

    Args:
        key_prefix: tells several KeyAuth of a process apart.
        telemetry: True: OpenTelemetry where it is installed, with its global providers. False: none.

    Raises:
        SetupError: providers are given and OpenTelemetry is not installed.
    """
    if telemetry is False:
        return Metrics()
    if otel is not None:
        given = Telemetry() if telemetry is True else telemetry
        return otel.OpenTelemetryInstruments(key_prefix, given.meter_provider, given.tracer_provider)
    if telemetry is not True:
        raise SetupError("OpenTelemetry is not installed: install the extra 'otel', or opentelemetry-api itself.")
    return Metrics()
