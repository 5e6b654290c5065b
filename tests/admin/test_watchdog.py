import threading

import pytest
from quiver.admin import watchdog
from quiver.admin.watchdog import Watchdog


def test_barks_only_once_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "GRACE", 0.01)
    barked = threading.Event()
    dog = Watchdog(barked.set)
    dog.arm(600)
    dog.arm(0.01)
    assert barked.wait(10)


def test_disarmed_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "GRACE", 0.01)
    barked = threading.Event()
    dog = Watchdog(barked.set)
    dog.arm(0.05)
    dog.disarm()
    assert not barked.wait(0.2)
