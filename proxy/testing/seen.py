"""What a simulated client asks for, and what it then saw: byte by byte through h11, token by token through our own eyes."""

import re
from typing import Literal

import h11
import msgspec
import trio

from ..network import Wire
from .network import connection_number

# How an exchange ended, as its client tells: whole; `cut` inside the reply; `closed` before any of it; `left` by its own
# wish; `patience` lost.
Ending = Literal["whole", "cut", "closed", "left", "patience"]
TOKEN = re.compile(r"([\w.-]+)/(\d+)/(\d+)")


class Ask(msgspec.Struct, frozen=True):
    """One request. `marker` comes back in every token; `shared` says that others may ask the very same."""

    marker: str
    request_id: str
    model: str
    stream: bool = True
    max_tokens: int = 4
    shared: bool = False
    fields: tuple[tuple[str, str], ...] = ()
    chunked: bool = False

    def head_and_body(self) -> tuple[bytes, bytes]:
        """The bytes of the request."""
        content: dict[str, object] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "messages": [{"role": "user", "content": self.marker}],
        }
        if self.stream:
            content |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.shared:
            content["temperature"] = 0
        body = msgspec.json.encode(content)
        size = ("Content-Length", str(len(body)))
        if self.chunked:
            size, body = ("Transfer-Encoding", "chunked"), b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        fields = [("Host", "gateway"), ("X-Request-ID", self.request_id), size, *self.fields]
        lines = ["POST /v1/chat/completions HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
        return "\r\n".join(lines).encode(), body


class Seen:
    """What became of one request. `owner` is who pays: a key, or an address. Times are virtual; tokens are (marker, start,
    place).
    """

    def __init__(self, ask: Ask, client: str, owner: str, connection: int) -> None:
        self.ask, self.client, self.owner, self.connection = ask, client, owner, connection
        self.asked: float | None = None
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.first_content: float | None = None
        self.tokens: list[tuple[str, int, int]] = []
        self.done = False
        self.error: str | None = None
        self.ending: Ending | None = None
        self.ended: float | None = None
        # Whether it read all along; one that does not may be cut off.
        self.attentive = True
        self._text = ""

    def __repr__(self) -> str:
        what = self.error or ("done" if self.done else "no end")
        return f"<Seen {self.ask.marker} by {self.client}: {self.status}, {len(self.tokens)} tokens, {what}, {self.ending}>"

    @property
    def streamed(self) -> bool:
        """Whether the reply is a stream of events."""
        return self.fields.get(b"content-type", b"").startswith(b"text/event-stream")

    def end(self, ending: Ending) -> None:
        """Nothing more will be seen."""
        if self.ending is None:
            self.ending, self.ended = ending, trio.current_time()

    def head(self, response: h11.Response) -> None:
        """The reply has begun."""
        self.status, self.fields = response.status_code, dict(response.headers)

    def data(self, data: bytes) -> None:
        """More of the reply's body."""
        self._text += data.decode()
        if self.streamed:
            *events, self._text = self._text.split("\n\n")
            for event in events:
                self._event(event)

    def whole(self) -> None:
        """The body is complete by its framing."""
        if not self.streamed and self._text:
            self._reply(self._text)
        elif self._text:
            self.error = "half an event"
        self.end("whole")

    def _reply(self, text: str) -> None:
        try:
            content = msgspec.json.decode(text)
        except msgspec.DecodeError:
            self.error = "not JSON"
            return
        self._note_error(content)
        for choice in content.get("choices", ()):
            self._note_tokens(choice["message"]["content"])
            self.done = True

    def _event(self, event: str) -> None:
        if event.startswith(":"):
            return
        payload = event.removeprefix("data: ")
        if self.done or self.error:
            self.error = "an event after the last"
        elif payload == "[DONE]":
            self.done = True
        else:
            content = msgspec.json.decode(payload)
            self._note_error(content)
            for choice in content.get("choices", ()):
                self._note_tokens(choice["delta"].get("content", ""))

    def _note_error(self, content: dict[str, dict[str, str]]) -> None:
        if "error" in content:
            self.error = content["error"].get("code") or content["error"]["message"]
        elif self.first_content is None:
            self.first_content = trio.current_time()

    def _note_tokens(self, text: str) -> None:
        self.tokens += [(marker, int(start), int(place)) for marker, start, place in TOKEN.findall(text)]


class Reader:
    """Reads replies off a wire, one after another. Raises what the wire raises, and `h11.RemoteProtocolError`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._left_over = b""
        self.connection = connection_number(wire)
        self.ended = False

    def __repr__(self) -> str:
        return f"<Reader of #{self.connection}{', ended' if self.ended else ''}>"

    async def read(self, seen: Seen, tokens: float) -> bool:
        """Read until the reply ends, or so many tokens are there; whether the connection may carry another request."""
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method="POST", target="/", headers=[("host", "gateway"), ("content-length", "0")]))
        http.send(h11.EndOfMessage())
        if self._left_over:
            http.receive_data(self._left_over)
        while len(seen.tokens) < tokens:
            match event := http.next_event():
                case h11.NEED_DATA:
                    data = await self._wire.receive_some()
                    self.ended = not data
                    http.receive_data(data)
                case h11.Response():
                    seen.head(event)
                case h11.Data():
                    seen.data(event.data)
                case h11.EndOfMessage():
                    seen.whole()
                    self._left_over = http.trailing_data[0]
                    return http.their_state is h11.DONE
                case h11.ConnectionClosed():
                    break
        return False
