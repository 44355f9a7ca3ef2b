"""An OpenTelemetry SDK that tests read from."""

from collections import defaultdict
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_keyauth import Telemetry


class Lab:
    """An OpenTelemetry SDK of the test's own."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.telemetry = Telemetry(MeterProvider([self.reader]), self.tracers)

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the values by instrument and attributes (as text, without the prefix); for a histogram, the count."""
        found: dict[str, dict[str, Any]] = defaultdict(dict)
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == "fastapi_keyauth"
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        attributes = dict(point.attributes or {})
                        prefix = attributes.pop("keyauth.key_prefix")
                        name = " ".join([str(prefix), *(str(value) for value in attributes.values())])
                        found[metric.name][name] = point.count if hasattr(point, "count") else point.value
        return found
