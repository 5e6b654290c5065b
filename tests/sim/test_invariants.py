"""Each promise is really judged: evidence of a planted breach is found, and named."""

from collections.abc import Callable
from random import Random

import h11
import msgspec
import pytest
import trio
from quiver.proxy.telemetry.record import Record
from quiver.proxy.testing.evidence import Evidence
from quiver.proxy.testing.invariants import breaches
from quiver.proxy.testing.knobs import draw_plan
from quiver.proxy.testing.network import SimulatedNetwork
from quiver.proxy.testing.seen import Ask, Seen
from quiver.proxy.testing.upstream import Chat, Start
from quiver.schemas.config import Config, Key
from quiver.schemas.openai import Usage
from trio.testing import MockClock

CHAT = Chat("alpha", [{"role": "user", "content": "a"}], 2, stream=True)
OWNER = "client-key"
CONFIG = Config(keys=(Key(name="client", key=OWNER, requests_per_minute=1, tokens_per_minute=25),))


def record(request_id: str = "a") -> Record:
    return Record(
        request_id=request_id,
        at=0.0,
        client="client",
        endpoint="chat/completions",
        model="alpha",
        server_id="server1",
        stream=True,
        status=200,
        outcome="completed",
        error=None,
        source="server",
        attempts=1,
        queued=0.0,
        duration=1.0,
        first_byte=0.5,
        usage=Usage(15, 2, 17),
        estimated=False,
    )


def good() -> tuple[Evidence, Seen, Start]:
    """One request that went well: two tokens, a record, no complaint."""
    plan = msgspec.structs.replace(draw_plan(Random(1)), config=CONFIG)
    evidence = Evidence(plan, SimulatedNetwork(Random(1)))
    start = evidence.servers.begin(CHAT, "server1", 1, "ok")
    start.planned = start.made = 2
    start.done, start.ended = True, trio.current_time()
    seen = Seen(Ask("a", "a", "alpha"), "client", OWNER, 2)
    seen.asked = trio.current_time()
    fields = [("content-type", "text/event-stream"), ("x-request-id", "a")]
    seen.head(h11.Response(status_code=200, headers=fields))
    seen.tokens, seen.done, seen.first_content = [("a", 0, 0), ("a", 0, 1)], True, trio.current_time()
    seen.end("whole")
    evidence.clients.seen.append(seen)
    evidence.records.append(record())
    return evidence, seen, start


def lose_token(evidence: Evidence, seen: Seen, start: Start) -> None:
    del seen.tokens[0]


def take_foreign_token(evidence: Evidence, seen: Seen, start: Start) -> None:
    seen.tokens[1] = ("b", 0, 1)


def end_too_soon(evidence: Evidence, seen: Seen, start: Start) -> None:
    del seen.tokens[1]


def stop_in_silence(evidence: Evidence, seen: Seen, start: Start) -> None:
    seen.done = False


def cut_off(evidence: Evidence, seen: Seen, start: Start) -> None:
    seen.done, seen.ending = False, "cut"


def wait_in_vain(evidence: Evidence, seen: Seen, start: Start) -> None:
    seen.done, seen.ending = False, "patience"


def start_again(evidence: Evidence, seen: Seen, start: Start) -> None:
    evidence.servers.begin(CHAT, "server2", 3, "ok").ended = 0.0


def record_twice(evidence: Evidence, seen: Seen, start: Start) -> None:
    evidence.records.append(record())


def record_never(evidence: Evidence, seen: Seen, start: Start) -> None:
    evidence.records.clear()


def record_too_long(evidence: Evidence, seen: Seen, start: Start) -> None:
    late = msgspec.structs.replace(record(), duration=evidence.plan.config.limits.request + 6)
    evidence.records[:] = [late]


def record_other_usage(evidence: Evidence, seen: Seen, start: Start) -> None:
    evidence.records[:] = [msgspec.structs.replace(record(), usage=None)]


def work_on(evidence: Evidence, seen: Seen, start: Start) -> None:
    seen.done, seen.ending, seen.ended = False, "left", 0.0
    start.done, start.ended = False, 1.5


def ask_too_often(evidence: Evidence, seen: Seen, start: Start) -> None:
    chat = msgspec.structs.replace(CHAT, messages=[{"role": "user", "content": "b"}])
    evidence.servers.begin(chat, "server1", 1, "ok").ended = 0.0
    evidence.clients.seen.append(Seen(Ask("b", "b", "alpha"), "client", OWNER, 4))
    evidence.records.append(record("b"))


def spend_too_much(evidence: Evidence, seen: Seen, start: Start) -> None:
    start.planned = start.made = 8
    seen.tokens = [("a", 0, place) for place in range(8)]
    evidence.records[:] = [msgspec.structs.replace(record(), usage=Usage(20, 8, 28))]


def share_between_keys(evidence: Evidence, seen: Seen, start: Start) -> None:
    other = Seen(seen.ask, "other", "other-key", 5)
    other.tokens = list(seen.tokens)
    evidence.clients.seen.append(other)


def connect_to_metadata(evidence: Evidence, seen: Seen, start: Start) -> None:
    evidence.network.note("connect", 9, "169.254.169.254:9000", "127.0.0.1", "open")


def complain(evidence: Evidence, seen: Seen, start: Start) -> None:
    evidence.servers.complaints.append("server1 was sent bad HTTP")


PLANTED: list[tuple[Callable[[Evidence, Seen, Start], None], str]] = [
    (lose_token, "lost, doubled or out of order"),
    (take_foreign_token, "of another request"),
    (end_too_soon, "was told of an end"),
    (stop_in_silence, "truncated in silence"),
    (cut_off, "was cut off"),
    (wait_in_vain, "waited in vain"),
    (start_again, "had content already"),
    (record_twice, "has 2 records"),
    (record_never, "has no record"),
    (record_too_long, "took longer than"),
    (record_other_usage, "took 2 tokens, and"),
    (work_on, "went on until 1.5"),
    (ask_too_often, "may ask 1 times a minute, and had 2"),
    (spend_too_much, "may spend 25 tokens a minute, and had 28"),
    (share_between_keys, "went to ['client-key', 'other-key']"),
    (connect_to_metadata, "was connected to"),
    (complain, "bad HTTP"),
]


async def test_good_run_is_good(autojump_clock: MockClock) -> None:
    assert breaches(good()[0]) == []


@pytest.mark.parametrize(("plant", "words"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
async def test_planted_breach_is_found(
    plant: Callable[[Evidence, Seen, Start], None], words: str, autojump_clock: MockClock
) -> None:
    evidence, seen, start = good()
    plant(evidence, seen, start)
    assert any(words in breach for breach in breaches(evidence)), breaches(evidence)
