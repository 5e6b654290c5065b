"""Spans of requests for OpenTelemetry. Nothing of it is imported unless `telemetry.tracing` is on."""
