"""What request lines say of graphics cards, from readings that are taken now and then."""

from collections.abc import Iterator

from quiver.admin.logs.gpu import INTERVAL, GpuReading, GpuWatch
from quiver.proxy.telemetry.metrics import Figure

MIB = 1024 * 1024


class Cards:
    """Two cards of 8 GiB, of which more is used at each reading."""

    def __init__(self, *, present: bool = True) -> None:
        self.present, self.asked = present, 0

    def figures(self) -> Iterator[Figure]:
        self.asked += 1
        for number in ("0", "1") if self.present else ():
            label = (("gpu", number),)
            yield Figure("gauge", "quiver_gpu_memory_used_bytes", "", 100 * self.asked * MIB, label)
            yield Figure("gauge", "quiver_gpu_memory_bytes", "", 8192 * MIB, label)
            yield Figure("gauge", "quiver_gpu_busy_ratio", "", 0.5 if number == "0" else 0.874, label)


def test_memory_before_and_after() -> None:
    cards, now = Cards(), [100.0]
    watch = GpuWatch(cards.figures, lambda: now[0])
    assert watch(99.0, 100.0) == GpuReading(200, 16384, 87.4)
    now[0] += 10
    assert watch(105.0, 110.0) == GpuReading(400, 16384, 87.4, memory_before_mb=200)


def test_many_requests_share_a_reading() -> None:
    cards, now = Cards(), [100.0]
    watch = GpuWatch(cards.figures, lambda: now[0])
    for _ in range(1000):
        watch(99.0, now[0])
        now[0] += INTERVAL / 1000
    assert cards.asked <= 2


def test_machine_without_cards_is_asked_once() -> None:
    cards = Cards(present=False)
    watch = GpuWatch(cards.figures, lambda: 100.0)
    assert [watch(99.0, 100.0) for _ in range(5)] == [None] * 5
    assert cards.asked == 1
