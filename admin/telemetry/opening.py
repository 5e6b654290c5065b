"""Starting what the configuration asks for, and saying what is missing for it."""

import importlib
import os

from quiver.proxy.telemetry.tracing import Tracer
from quiver.schemas.config import Telemetry


class MissingExtra(Exception):
    """Something is configured that needs a package which is not installed. `hint` says how to get it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def open_tracer(config: Telemetry) -> Tracer | None:
    """What makes spans; None where that is off. Raises `MissingExtra`."""
    if not config.tracing or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        module = importlib.import_module(".otel", __package__)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise MissingExtra(
            f"`telemetry.tracing` is on, but `{error.name}` is not installed",
            "install it with `pip install 'quiver-gateway[otel]'`, or set `telemetry.tracing = false`",
        ) from None
    tracer: Tracer = module.OtelTracer(config)
    return tracer
