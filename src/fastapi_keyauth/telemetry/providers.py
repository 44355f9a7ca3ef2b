"""The receiver of metrics and spans: OpenTelemetry if ``opentelemetry-api`` is installed, or none."""

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
    """OpenTelemetry providers for ``KeyAuth(telemetry=...)``.

    Attributes:
        meter_provider: Meter provider. None: the global one, also if it is set later.
        tracer_provider: Tracer provider. None: the global one, if it is set before the application starts.
    """

    meter_provider: "MeterProvider | None" = None
    tracer_provider: "TracerProvider | None" = None


def build_metrics(key_prefix: str, telemetry: Telemetry | bool) -> Metrics:
    """Build the metrics of one KeyAuth.

    Args:
        key_prefix: Prefix that distinguishes several KeyAuth in a process.
        telemetry: Providers. True: OpenTelemetry's global ones, if it is installed. False: none.

    Raises:
        SetupError: If providers are given and OpenTelemetry is not installed.
    """
    if telemetry is False:
        return Metrics()
    if otel is not None:
        given = Telemetry() if telemetry is True else telemetry
        return otel.OpenTelemetryInstruments(key_prefix, given.meter_provider, given.tracer_provider)
    if telemetry is not True:
        raise SetupError("OpenTelemetry is not installed: install the extra 'otel', or opentelemetry-api itself.")
    return Metrics()
