"""What the graphics cards were doing while a request ran, from readings taken now and then."""

import time
from collections import deque
from collections.abc import Callable, Iterable

import msgspec
from quiver.proxy.local.gpu import GpuFigures
from quiver.proxy.telemetry.metrics import Figure

# A reading costs a call of the driver, so there are at most so many a second.
INTERVAL = 0.5
KEPT = 512
_MIB = 1024 * 1024


class GpuReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """All cards together, memory in MiB, utilization in percent (the busiest card). `memory_before_mb`: at the last reading
    before the request began.
    """

    memory_used_mb: int
    memory_total_mb: int
    utilization_percent: float | None = None
    memory_before_mb: int | None = None


class GpuWatch:
    """Readings of the cards, kept for a while. Not for the event loop: the driver may take its time."""

    def __init__(
        self,
        figures: Callable[[], Iterable[Figure]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._figures, self._clock = figures or GpuFigures().figures, clock
        self._readings: deque[tuple[float, GpuReading]] = deque(maxlen=KEPT)
        self._absent = False

    def __repr__(self) -> str:
        return f"<GpuWatch: {len(self._readings)} readings{', no card' if self._absent else ''}>"

    def __call__(self, began: float, ended: float) -> GpuReading | None:
        """How the cards stand now, and what was in use before `began` (Unix time). None without a card."""
        reading = self._reading()
        if reading is None:
            return None
        before = next((earlier.memory_used_mb for at, earlier in reversed(self._readings) if at <= began), None)
        return msgspec.structs.replace(reading, memory_before_mb=before)

    def _reading(self) -> GpuReading | None:
        if self._absent:
            return None
        now = self._clock()
        if not self._readings or now - self._readings[-1][0] >= INTERVAL:
            found: dict[str, list[float]] = {}
            for figure in self._figures():
                if isinstance(figure.value, int | float):
                    found.setdefault(figure.name.removeprefix("quiver_gpu_"), []).append(figure.value)
            if "memory_used_bytes" not in found:
                self._absent = not self._readings
                return None
            busy = found.get("busy_ratio")
            reading = GpuReading(
                round(sum(found["memory_used_bytes"]) / _MIB),
                round(sum(found.get("memory_bytes", [0])) / _MIB),
                None if busy is None else round(100 * max(busy), 1),
            )
            self._readings.append((now, reading))
        return self._readings[-1][1]
