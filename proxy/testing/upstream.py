"""Scripted model servers: they answer as their moods say, and remember what they were asked and what they made of it.

Their HTTP is h11's, so that a mistake in our own codec meets an independent reader. Each token names the request it
belongs to, the start of the generation and its place in it: `marker/start/place`.
"""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from random import Random
from typing import Literal, get_args

import h11
import msgspec
import trio

from ..network import Wire
from .conversation import Conversation, PeerLeft
from .network import SimulatedNetwork

Mood = Literal[
    "ok",
    "slow",
    "delayed",
    "lingering",
    "closing_idle",
    "close_delimited",
    "error",
    "unavailable",
    "busy",
    "unauthorized",
    "bad_request",
    "garbage",
    "long_length",
    "cut",
    "error_event",
    "stall",
    "black_hole",
]
MOODS: tuple[Mood, ...] = get_args(Mood)
# Moods in which the client still gets a whole answer.
WELL: tuple[Mood, ...] = ("ok", "slow", "delayed", "lingering", "closing_idle", "close_delimited")
# What befalls a request of a sick server: above all what happens when a part of the answer is out.
ILL: tuple[Mood, ...] = (*MOODS, "cut", "cut", "cut", "cut", "error_event", "stall")
REFUSALS: dict[Mood, tuple[int, str]] = {
    "error": (500, "boom"),
    "unavailable": (503, "loading"),
    "busy": (429, "too many requests"),
    "unauthorized": (401, "bad key"),
    "bad_request": (400, "no such parameter"),
}
GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{not json",
    b"ICY 200 OK\r\n\r\n",
)
EVENT_STREAM = ("content-type", "text/event-stream; charset=utf-8")
JSON = ("content-type", "application/json")
# What every prompt counts for: nearly what the gateway guesses, never more.
PROMPT_TOKENS = 20


class Chat(msgspec.Struct):
    """What a server reads of a request's body."""

    model: str
    messages: list[dict[str, str]]
    max_tokens: int
    stream: bool = False
    stream_options: dict[str, bool] = {}


class Start:
    """One request as a server got it. `number` counts the starts of one marker, from 0."""

    def __init__(self, number: int, marker: str, server: str, connection: int, chat: Chat, mood: Mood) -> None:
        self.number, self.marker, self.server, self.connection = number, marker, server, connection
        self.stream, self.mood = chat.stream, mood
        self.at = trio.current_time()
        self.planned = 0
        self.made = 0
        self.done = False
        self.ended: float | None = None
        self.peer_left = False

    def __repr__(self) -> str:
        state = "running" if self.ended is None else "done" if self.done else "broken off"
        return f"<Start {self.marker}/{self.number} on {self.server}: {self.mood}, {self.made} tokens, {state}>"


class ServerLog:
    """What all servers together remember: every start, in order, and every rule the gateway broke towards them."""

    def __init__(self) -> None:
        self.starts: list[Start] = []
        self.by_marker: dict[str, list[Start]] = {}
        self.complaints: list[str] = []

    def __repr__(self) -> str:
        return f"<ServerLog: {len(self.starts)} starts, {len(self.complaints)} complaints>"

    def begin(self, chat: Chat, server: str, connection: int, mood: Mood) -> Start:
        """A server takes up a request, whose last message is its marker."""
        marker = chat.messages[-1]["content"]
        known = self.by_marker.setdefault(marker, [])
        start = Start(len(known), marker, server, connection, chat, mood)
        known.append(start)
        self.starts.append(start)
        return start


class ModelServer:
    """One server. `mood` is asked for each request; `key`, if set, must be shown; `most` is the concurrency it allows."""

    def __init__(
        self,
        name: str,
        hosts: Sequence[str],
        models: Iterable[str],
        network: SimulatedNetwork,
        random: Random,
        log: ServerLog,
        *,
        mood: Callable[[], Mood] = lambda: "ok",
        key: str | None = None,
        most: int | None = None,
        reports: bool = False,
        port: int = 9000,
    ) -> None:
        self.name, self.hosts, self.port, self.models = name, tuple(hosts), port, tuple(models)
        self.mood, self.key, self.most, self.reports = mood, key, most, reports
        self._network, self._random, self._log = network, random, log
        self._running: list[Start] = []

    def __repr__(self) -> str:
        return f"<ModelServer {self.name} at {self.hosts}: {len(self._running)} running>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then every connection is closed at once."""
        async with trio.open_nursery() as nursery:
            for host in self.hosts:
                await nursery.start(self._accept, host)
            task_status.started()

    async def _accept(self, host: str, task_status: trio.TaskStatus[None]) -> None:
        (acceptor,) = await self._network.listen(host, self.port)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    for wire in await acceptor.accept():
                        nursery.start_soon(self._serve, wire)
        finally:
            acceptor.close()

    async def _serve(self, wire: Wire) -> None:
        conversation = Conversation(wire)
        try:
            while (request := await conversation.request()) is not None and await self._answer(conversation, *request):
                pass
        except h11.ProtocolError as error:
            if not conversation.ended:
                self._log.complaints.append(f"{self.name} was sent bad HTTP: {error}")
        except (trio.BrokenResourceError, trio.ClosedResourceError, PeerLeft):
            pass
        finally:
            wire.close()

    async def _answer(self, conversation: Conversation, request: h11.Request, body: bytes) -> bool:
        """Whether the connection may carry another request."""
        self._check_head(request)
        if request.target == b"/v1/models":
            return await self._list_models(conversation)
        if request.method == b"GET":
            return await self._tell_load(conversation)
        try:
            chat = msgspec.json.decode(body, type=Chat)
        except msgspec.DecodeError as error:
            self._log.complaints.append(f"{self.name} was sent a bad body: {error}")
            return False
        if chat.model not in self.models:
            self._log.complaints.append(f"{self.name} was asked for the model {chat.model}, which it does not offer")
        start = self._log.begin(chat, self.name, conversation.connection, self.mood())
        start.planned = self._random.randint(1, chat.max_tokens)
        self._running.append(start)
        self._check_concurrency()
        self._network.note("start", start.marker, start.number, self.name, start.mood)
        try:
            return await _answer(conversation, start, chat, self._random)
        except (trio.BrokenResourceError, PeerLeft):
            start.peer_left = True
            raise
        finally:
            start.ended = trio.current_time()
            self._running.remove(start)
            self._network.note("end", start.marker, start.number, start.made, start.done)

    async def _list_models(self, conversation: Conversation) -> bool:
        mood = self.mood()
        if mood == "black_hole":
            await conversation.pause(inf)
        if mood in REFUSALS:
            status, text = REFUSALS[mood]
            await conversation.reply(status, text.encode(), [("content-type", "text/plain")])
        else:
            cards = [{"id": model, "object": "model"} for model in self.models]
            await conversation.reply(200, msgspec.json.encode({"object": "list", "data": cards}))
        return conversation.next_cycle()

    async def _tell_load(self, conversation: Conversation) -> bool:
        """A page of figures, where there is one."""
        if self.reports:
            await conversation.reply(200, b"vllm:num_requests_running %d\n" % len(self._running))
        else:
            await conversation.reply(404, b"not found")
        return conversation.next_cycle()

    def _check_head(self, request: h11.Request) -> None:
        headers = dict(request.headers)
        wanted = f"Bearer {self.key}".encode() if self.key else None
        if headers.get(b"authorization") != wanted:
            self._log.complaints.append(f"{self.name} was shown {headers.get(b'authorization')!r}, not {wanted!r}")

    def _check_concurrency(self) -> None:
        """The gateway's requests, less those it has hung up on and those that have their answer."""
        held = [start for start in self._running if not start.done and self._network.caller_holds(start.connection)]
        if self.most is not None and len(held) > self.most:
            self._log.complaints.append(f"{self.name} got {len(held)} requests at a time, not {self.most}: {held}")


async def _answer(conversation: Conversation, start: Start, chat: Chat, random: Random) -> bool:
    """Answer one request as its mood says; whether the connection may carry another."""
    mood = start.mood
    if mood in REFUSALS:
        status, text = REFUSALS[mood]
        fields = [("retry-after", str(random.randint(1, 4)))] if mood in ("busy", "unavailable") else []
        error = {"message": text, "type": "server_error", "code": None, "param": None}
        body = msgspec.json.encode({"error": error}) if random.random() < 0.7 else text.encode()
        await conversation.reply(status, body, [*fields, JSON])
        return conversation.next_cycle()
    if mood == "garbage":
        await conversation.send_raw(random.choice(GARBAGE))
        return False
    if mood == "black_hole":
        await conversation.pause(inf)
    if mood == "delayed":
        await conversation.pause(random.choice((0.5, 2, 10)))
    whole = await (_stream if start.stream else _complete)(conversation, start, chat, random)
    if whole and mood == "closing_idle":
        await conversation.pause(random.choice((0, 0.001, 0.1, 3)))
        return False
    return whole and conversation.next_cycle()


async def _stream(conversation: Conversation, start: Start, chat: Chat, random: Random) -> bool:
    """A reply as events; whether it was whole."""
    mood = start.mood
    await conversation.begin(200, [EVENT_STREAM], close_delimited=mood == "close_delimited")
    send = conversation.send_raw if mood == "close_delimited" else conversation.data
    if mood == "slow":
        await conversation.pause(random.choice((1, 5, 20)))
    await send(_event({"role": "assistant", "content": ""}))
    breaks = random.randint(0, start.planned) if mood in ("cut", "long_length", "error_event", "stall") else inf
    while start.made < min(start.planned, breaks):
        await conversation.pause(random.choice((0, 0, 0.01, 0.3)))
        together = random.choice((1, 1, 1, 3))
        tokens = range(start.made, min(start.made + together, start.planned))
        start.made = tokens.stop
        await send(b"".join(_event({"content": f"{start.marker}/{start.number}/{place} "}) for place in tokens))
    if mood == "stall":
        await conversation.pause(inf)
    if mood == "error_event":
        await send(b'data: {"error": {"message": "out of memory", "type": "server_error", "code": "oom"}}\n\n')
        await conversation.end()
        return True
    if breaks < inf:
        return False
    usage = _usage(start) if chat.stream_options.get("include_usage") else None
    last = _event({}, "stop") + (b"data: %b\n\n" % msgspec.json.encode({"choices": [], **usage}) if usage else b"")
    start.done = True
    await send(last + b"data: [DONE]\n\n")
    if mood == "close_delimited":
        return False
    if mood == "lingering":
        await conversation.pause(random.choice((0.01, 1, 8)))
    await conversation.end()
    return True


async def _complete(conversation: Conversation, start: Start, chat: Chat, random: Random) -> bool:
    """A reply in one piece; whether it was whole."""
    await conversation.pause(random.choice((0, 0.01, 0.3)))
    start.made = start.planned
    content = "".join(f"{start.marker}/{start.number}/{place} " for place in range(start.planned))
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    body = msgspec.json.encode({"object": "chat.completion", "choices": [choice], **_usage(start)})
    if start.mood == "close_delimited":
        start.done = True
        await conversation.begin(200, [JSON], close_delimited=True)
        await conversation.send_raw(body)
        return False
    if start.mood in ("cut", "long_length", "error_event", "stall"):
        await conversation.begin(200, [("content-length", str(len(body) + 50)), JSON])
        await conversation.data(body[: random.randint(0, len(body))])
        if start.mood == "stall":
            await conversation.pause(inf)
        return False
    start.done = True
    await conversation.reply(200, body, [JSON])
    return True


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % msgspec.json.encode({"object": "chat.completion.chunk", "choices": [choice]})


def _usage(start: Start) -> dict[str, object]:
    made, prompt = start.planned, PROMPT_TOKENS
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}}
