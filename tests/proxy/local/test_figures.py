"""What local models and graphics cards put on the metrics page."""

from types import SimpleNamespace
from typing import Any

import pytest
from quiver.proxy.local.figures import STATISTICS, SequenceFigures
from quiver.proxy.local.gpu import GpuFigures
from quiver.proxy.native import EngineStatistics, Finished
from quiver.proxy.telemetry.metrics import Metrics
from quiver.proxy.telemetry.record import EngineTimings

from ..telemetry.test_metrics import Samples, samples, value


def finished(
    completion_tokens: int = 5, queue: float = 0.002, prompt: float = 0.5, generation: float = 2.0
) -> Finished:
    return Finished(1, "stop", 120, completion_tokens, queue, prompt, generation, queue + prompt, 20, 6, 3, 0)


def page(*figures: Any) -> Samples:
    metrics = Metrics()
    metrics.figures = lambda: iter([figure for source in figures for figure in source])
    return samples(metrics)


def test_every_statistic_is_shown() -> None:
    told = {name for name in vars(EngineStatistics) if not name.startswith("_")}
    assert told == set(STATISTICS)


def test_sequences_fill_histograms() -> None:
    sequences = SequenceFigures()
    for event in (finished(), finished(generation=1.0), finished(1, generation=0.0), finished(0, prompt=0.0)):
        sequences.observe(event)
    found = page(sequences.figures(("model", "m")))
    cases = {
        # Whatever was computed waited first.
        "queue_seconds": (4, 0.008),
        "first_token_seconds": (3, 3 * 0.502),
        "prompt_seconds": (3, 1.5),
        "prompt_tokens_per_second": (3, 600.0),
        # A sequence of one token was not generated but read.
        "generation_seconds": (2, 3.0),
        "generation_tokens_per_second": (2, 2.0 + 4.0),
    }
    for name, (count, total) in cases.items():
        assert value(found, f"quiver_engine_{name}_count", model="m") == count, name
        assert value(found, f"quiver_engine_{name}_sum", model="m") == pytest.approx(total), name
    assert value(found, "quiver_engine_generation_tokens_per_second_bucket", model="m", le="2.0") == 1


def test_models_share_a_family() -> None:
    sequences = {name: SequenceFigures() for name in ("a", "b")}
    sequences["a"].observe(finished())
    found = page(*(each.figures(("model", name)) for name, each in sequences.items()))
    counts = [value(found, "quiver_engine_queue_seconds_count", model=name) for name in sequences]
    assert counts == [1, 0]


def test_longest_times_are_kept() -> None:
    one, other = EngineTimings(1, 2, 3, 4, 10, 5, 8, 2, 1), EngineTimings(4, 3, 2, 1, 10, 7)
    assert one.beside(other) == EngineTimings(4, 3, 3, 4, 20, 12, 8, 2, 1)


class Cards:
    """Two cards; the second knows nothing of power."""

    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUtilizationRates(self, card: int) -> Any:
        return SimpleNamespace(gpu=25 * (card + 1))

    def nvmlDeviceGetMemoryInfo(self, card: int) -> Any:
        return SimpleNamespace(used=1 << 30, total=1 << 34)

    def nvmlDeviceGetPowerUsage(self, card: int) -> int:
        if card:
            raise RuntimeError("not supported")
        return 71_500

    def nvmlDeviceGetTemperature(self, card: int, sensor: int) -> int:
        return 40 + card


def test_cards_are_shown() -> None:
    found = page(GpuFigures(Cards).figures())
    assert [value(found, "quiver_gpu_busy_ratio", gpu=gpu) for gpu in "01"] == [0.25, 0.5]
    assert value(found, "quiver_gpu_memory_used_bytes", gpu="1") == 1 << 30
    assert value(found, "quiver_gpu_power_watts", gpu="0") == 71.5
    assert ("quiver_gpu_power_watts", frozenset({("gpu", "1")})) not in found


def _no_library() -> Any:
    raise ImportError("No module named 'pynvml'")


class _NoDriver(Cards):
    def nvmlInit(self) -> None:
        raise RuntimeError("NVML Shared Library Not Found")


@pytest.mark.parametrize("load", [_no_library, _NoDriver])
def test_absent_cards_are_no_error(load: Any) -> None:
    cards = GpuFigures(load)
    assert [*cards.figures(), *cards.figures()] == []
