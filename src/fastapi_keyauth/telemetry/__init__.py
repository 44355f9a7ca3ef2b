"""Logs, counters, events and OpenTelemetry."""

from fastapi_keyauth.telemetry.providers import Telemetry

__all__ = ["Telemetry"]
