"""The event loop keeps its beat while the engine computes on every processor."""

import trio
from quiver.proxy.local.engine import LocalEngine

from .conftest import answer, ask

BEAT = 0.001
# Wide on purpose: a held GIL shows as the length of a step or of the whole prompt, which is many times this.
WORST = 0.020


async def test_beat_holds_during_prefill(engine: LocalEngine) -> None:
    lags: list[float] = []

    async def tick() -> None:
        while True:
            due = trio.current_time() + BEAT
            await trio.sleep_until(due)
            lags.append(trio.current_time() - due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        whole = await answer(engine, ask("x" * 2000, max_tokens=8))
        nursery.cancel_scope.cancel()
    assert whole.reason == "length"
    lags.sort()
    assert len(lags) > 50, "the prompt took long enough to tell"
    assert lags[int(len(lags) * 0.99)] < WORST
