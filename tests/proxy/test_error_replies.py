"""What clients are told when something goes wrong: by what name, of which models, and nothing of what is behind the gateway."""

import re

import msgspec
import pytest
from quiver.proxy.testing import RecordingDownstream, ScriptedBackend, request
from quiver.schemas import errors
from quiver.schemas.config import Config, RemoteBackend
from trio.testing import MockClock

from .conftest import Build
from .gateways import BODY, STREAM, answering, running
from .scripts import ALICE, BOB, KEYS, ask, whole
from .servers import Farm, Said, response
from .wires import read_until_close

ID = re.compile(rb"(?i)\r\nx-request-id: (\S+)\r\n")
PLANTED = ("10.0.0.1", "planted-host", "9000", "/srv/models", "Traceback", "planted-key")


def message_of(downstream: RecordingDownstream) -> str:
    found: str = msgspec.json.decode(downstream.body)["error"]["message"]
    return found


async def test_unknown_model_names_what_there_is(build: Build) -> None:
    handler = build([ScriptedBackend("b1", ["gpt", "m", *(f"n{number}" for number in range(30))], whole)])
    said = message_of(await ask(handler, b'{"model": "else", "messages": []}'))
    assert "`gpt`, `m`, `n0`" in said
    assert "22 more" in said
    assert len(said) < 400


async def test_others_models_are_not_named(build: Build) -> None:
    handler = build([ScriptedBackend("b1", ["gpt", "secret-model"], whole)], config=Config(keys=KEYS))
    for path, body in (("/v1/models/secret-modem", b""), ("/v1/models/zz", b"")):
        downstream = RecordingDownstream()
        await handler.handle(request("GET", path, body, [ALICE]), downstream)
        assert "`gpt`" in message_of(downstream)
        assert "`secret-model`" not in message_of(downstream)
    assert "`secret-model`" in message_of(await ask(handler, b'{"model": "secret-modem", "messages": []}', BOB))


async def test_no_models_are_said_to_be_none(build: Build) -> None:
    assert "There is none" in message_of(await ask(build([])))


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: mine\r\n\r\n", b"mine"),
        (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nContent-Length: 99999999\r\n\r\n",
            None,
        ),
        (b"DELETE /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: mine\r\n\r\n", b"mine"),
        (b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: mine\r\n\r\n", b"mine"),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nContent-Length: 1\r\n\r\nx", b"mine"),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: not mine\r\n\r\n", None),
        (b"BROKEN\r\n\r\n", None),
        (b"GET / HTTP/9.9\r\n\r\n", None),
        (b"GET /page HTTP/1.1\r\nHost: x\r\n\r\nBROKEN\r\n\r\n", None),
    ],
)
async def test_every_reply_has_an_id(farm: Farm, autojump_clock: MockClock, sent: bytes, given: bytes | None) -> None:
    async with running(farm, []) as gateway:
        client = await gateway.connect()
        await client.send_all(sent)
        received = await read_until_close(client)
        replies = received.split(b"HTTP/1.1 ")[1:]
        assert replies
        last = ID.findall(replies[-1])
        assert len(last) == 1, received
        if given is not None:
            assert last == [given]
        gateway.signal(2)


@pytest.mark.parametrize("body", [BODY, STREAM])
@pytest.mark.parametrize(
    "said",
    [
        Said(response(b"500 Oops", b'Traceback (most recent call last): File "/srv/models/x.py" at planted-host')),
        Said(response(b"401 No", b'{"error": {"message": "planted-key at planted-host:9000", "type": "x"}}')),
        Said(b"HTTP/1.1 200 OK\r\nplanted-host /srv/models\r\n\r\n"),
        Said(b"", cut=True),
        Said(response(b"200 OK", b"planted-host is not JSON /srv/models")),
        Said(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n/srv/models", cut=True),
    ],
)
async def test_servers_internals_stay_inside(farm: Farm, autojump_clock: MockClock, said: Said, body: bytes) -> None:
    config, _ = await farm.configure(answering(said))
    async with running(farm, [msgspec.structs.replace(config, api_key="planted-key")]) as gateway:
        received = (await gateway.ask(body, b"Connection: close")).decode()
        assert "error" in received
        assert not [word for word in PLANTED if word in received.partition("\r\n\r\n")[2]], received
        gateway.signal(2)


async def test_unreachable_server_is_not_named(farm: Farm, autojump_clock: MockClock) -> None:
    nowhere = RemoteBackend(url="http://10.0.0.1:9000/srv/models", name="far", models=("m",))
    async with running(farm, [nowhere]) as gateway:
        received = (await gateway.ask(BODY, b"Connection: close")).decode()
        assert "no_healthy_backend" in received
        assert not [word for word in PLANTED if word in received]
        gateway.signal(2)


async def test_our_own_faults_tell_nothing_but_the_id(build: Build) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("planted-host /srv/models Traceback")

    downstream = await ask(build([ScriptedBackend("b1", ["m"], broken)]))
    assert downstream.status == 500
    said = downstream.body.decode()
    assert not [word for word in PLANTED if word in said]
    assert downstream.headers[b"x-request-id"].decode() in said


def test_every_error_says_what_to_do() -> None:
    for kind in errors.CATALOGUE:
        assert kind.remedy.endswith(".")
        assert kind.meaning.endswith((".", "it."))
        assert kind.category in ("transient", "configuration", "resource", "model", "data")
