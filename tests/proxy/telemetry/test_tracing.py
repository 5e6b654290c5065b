"""Trace contexts: which are valid, what servers are told, and that nothing is made up unless somebody asked for it."""

import re
from random import Random

import pytest
from quiver.proxy.telemetry.tracing import MAX_STATE, Answer, Context, Trace, Tracing, read_context
from quiver.proxy.testing import request
from quiver.schemas.config import Telemetry
from trio.testing import MockClock

from ..gateways import BODY, OK, Running, answering, running
from ..servers import Asked, Farm

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.mark.parametrize(
    ("given", "sampled"),
    [
        (VALID, True),
        (VALID[:-2] + b"00", False),
        (VALID[:-2] + b"03", True),
        (b"cc" + VALID[2:], True),
        (b"cc" + VALID[2:] + b"-what-comes-later", True),
        (VALID + b"-more", None),
        (b"ff" + VALID[2:], None),
        (VALID.upper(), None),
        (VALID[:-1], None),
        (VALID + b"1", None),
        (VALID.replace(TRACE.encode(), b"0" * 32), None),
        (VALID.replace(SPAN.encode(), b"0" * 16), None),
        (VALID.replace(b"-", b"_"), None),
        (b"", None),
        (b"\xff" * 55, None),
    ],
)
def test_contexts_are_read_strictly(given: bytes, sampled: bool | None) -> None:
    found = read_context(request("POST", "/v1/x", headers=[(b"traceparent", given)]))
    assert found == (None if sampled is None else Context(int(TRACE, 16), int(SPAN, 16), sampled))


def test_two_contexts_are_none() -> None:
    assert read_context(request("POST", "/v1/x", headers=[(b"traceparent", VALID)] * 2)) is None


def test_states_are_put_together() -> None:
    headers = [(b"traceparent", VALID), (b"tracestate", b"a=1 "), (b"tracestate", b"b=2")]
    found = read_context(request("POST", "/v1/x", headers=headers))
    assert found is not None
    assert found.state == b"a=1,b=2"
    found = read_context(request("POST", "/v1/x", headers=[*headers, (b"tracestate", b"c" * MAX_STATE)]))
    assert found is not None
    assert found.state == b""


def test_answers_are_read_without_being_decoded() -> None:
    answer = Answer(content=False)
    answer.read(b'data: {"model":"say \\"m\\"","choices":[{"delta":{"content":"\\"finish_reason\\": \\"x\\""}}]}\n\n')
    answer.read(b'data: {"model":"n","choices":[{"finish_reason":null},{"finish_reason": "tool_calls"}]}\n\n')
    assert (answer.model, answer.finish_reasons, answer.content) == ('say \\"m\\"', ["tool_calls"], None)


async def asked_by(farm: Farm, telemetry: Telemetry, *headers: bytes) -> tuple[Asked, Running]:
    config, server = await farm.configure(answering(OK))
    async with running(farm, [config], telemetry=telemetry) as gateway:
        assert b"200 OK" in await gateway.ask(BODY, b"Connection: close", *headers)
        gateway.signal(2)
    (asked,) = [one for one in server.asked if one.path == b"/v1/chat/completions"]
    return asked, gateway


def sent_in(asked: Asked) -> bytes | None:
    found = re.search(rb"(?i)^traceparent: (.*)\r$", asked.head, re.M)
    return found and found[1]


async def test_context_passes_through(farm: Farm, autojump_clock: MockClock) -> None:
    asked, gateway = await asked_by(farm, Telemetry(), b"traceparent: " + VALID, b"tracestate: a=1")
    assert sent_in(asked) == VALID
    assert b"tracestate: a=1" in asked.head
    assert gateway.records[0].trace_id == TRACE


async def test_no_context_is_made_up(farm: Farm, autojump_clock: MockClock) -> None:
    asked, gateway = await asked_by(farm, Telemetry())
    assert sent_in(asked) is None
    assert gateway.records[0].trace_id is None


@pytest.mark.parametrize("given", [(), (b"traceparent: nonsense",)])
async def test_context_is_made_when_asked_for(farm: Farm, autojump_clock: MockClock, given: tuple[bytes, ...]) -> None:
    asked, gateway = await asked_by(farm, Telemetry(propagate=True), *given)
    sent = sent_in(asked)
    assert sent is not None
    found = read_context(request("POST", "/v1/x", headers=[(b"traceparent", sent)]))
    assert found is not None
    assert f"{found.trace_id:032x}" == gateway.records[0].trace_id
    assert not found.sampled, "nobody keeps spans of it"


def test_ids_come_from_the_world() -> None:
    def made() -> str | None:
        return Tracing(Random(7), propagate=True).begin(request("POST", "/v1/x"))[0]

    assert made() == made()
    assert repr(Trace(None, 255, Random(7))) == f"<Trace {255:032x}: 0 attempts, not sampled>"
