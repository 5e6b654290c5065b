"""Figures of the graphics cards, by NVIDIA's management library. Without the extra `gpu`, without a driver or without a card
there are none, and that is no error.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from ..telemetry.metrics import Figure


def _load() -> Any:
    return importlib.import_module("pynvml")


class GpuFigures:
    """Asks the cards whenever the metrics page is made. `load` gives the module `pynvml`, or raises."""

    def __init__(self, load: Callable[[], Any] = _load) -> None:
        self._load = load
        self._library: Any = None
        self._handles: list[Any] | None = None

    def __repr__(self) -> str:
        return f"<GpuFigures: {len(self._handles or [])} cards>"

    def figures(self) -> Iterator[Figure]:
        """A card's figures have its number as label; what a card does not tell is left out."""
        if self._handles is None:
            self._handles = self._find()
        for number, handle in enumerate(self._handles):
            labels = (("gpu", str(number)),)
            for name, meaning, read in READINGS:
                # The library's errors are classes of its own, and a driver may go at any moment.
                try:
                    value = float(read(self._library, handle))
                except Exception:  # noqa: S112
                    continue
                yield Figure("gauge", f"quiver_gpu_{name}", meaning, value, labels)

    def _find(self) -> list[Any]:
        """The cards there are; looked for once."""
        try:
            library = self._library = self._load()
            library.nvmlInit()
            return [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
        except Exception:
            return []


READINGS: tuple[tuple[str, str, Callable[[Any, Any], float]], ...] = (
    ("busy_ratio", "Share of time in which it computed", lambda nvml, card: _rates(nvml, card).gpu / 100),
    ("memory_used_bytes", "Memory in use", lambda nvml, card: _memory(nvml, card).used),
    ("memory_bytes", "Memory it has", lambda nvml, card: _memory(nvml, card).total),
    ("power_watts", "Power it draws", lambda nvml, card: nvml.nvmlDeviceGetPowerUsage(card) / 1000),
    ("celsius", "Temperature", lambda nvml, card: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
)


def _rates(nvml: Any, card: Any) -> Any:
    return nvml.nvmlDeviceGetUtilizationRates(card)


def _memory(nvml: Any, card: Any) -> Any:
    return nvml.nvmlDeviceGetMemoryInfo(card)
