"""A WebSocket as a carrier of bytes, over any of Trio's streams: both handshakes, messages, and the closing.

wsproto speaks the protocol. What a peer may make us keep is bounded: messages are passed on in the pieces in which they come.
"""

import contextlib
from collections.abc import Callable

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError as WsProtocolError

from ..network import CHUNK

# What a gateway says when it refuses to speak WebSocket: an error's envelope.
MAX_REFUSAL = 65_536
# What the peer gets to answer the closing handshake.
CLOSING = 1.0
MAX_OWED = 4096
GOING_AWAY = 1001


class Refused(Exception):
    """The peer answered the handshake with an ordinary reply: its status and body."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the gateway answered {status}")
        self.status, self.body = status, body


class WebSocketBroken(Exception):
    """The peer does not speak WebSocket as it should."""


class WebSocket:
    """An open WebSocket. One task may receive, and one may send. Whoever has the stream closes it.

    `owes`: there is an answer to a ping or a closing to send, by `send` with or without data; `wake` is called then.
    """

    def __init__(self, stream: trio.abc.Stream, connection: WSConnection) -> None:
        self._stream, self._connection = stream, connection
        self._owed = b""
        self._ended = False
        self.wake: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<WebSocket {self._connection.state.name}>"

    @classmethod
    async def accept(cls, stream: trio.abc.Stream, request: bytes) -> "WebSocket":
        """Answer `request`, the bytes of a handshake. Raises `WebSocketBroken` when it is none, and what the stream raises."""
        connection = WSConnection(ConnectionType.SERVER)
        try:
            connection.receive_data(request)
            if not any(isinstance(event, Request) for event in connection.events()):
                raise WebSocketBroken("the handshake is incomplete")
            reply = connection.send(AcceptConnection())
        except WsProtocolError as error:
            raise WebSocketBroken(str(error)) from error
        await stream.send_all(reply)
        return cls(stream, connection)

    @classmethod
    async def connect(
        cls, stream: trio.abc.Stream, host: str, target: str, headers: list[tuple[bytes, bytes]]
    ) -> "WebSocket":
        """Ask for a WebSocket at `target`. Raises `Refused`, `WebSocketBroken`, and what the stream raises."""
        connection = WSConnection(ConnectionType.CLIENT)
        await stream.send_all(connection.send(Request(host=host, target=target, extra_headers=headers)))
        status, body = 0, b""
        while True:
            data = bytes(await stream.receive_some(CHUNK))
            try:
                connection.receive_data(data)
                events = list(connection.events())
            except WsProtocolError as error:
                raise WebSocketBroken(str(error)) from error
            for event in events:
                if isinstance(event, AcceptConnection):
                    return cls(stream, connection)
                if isinstance(event, RejectConnection):
                    status = event.status_code
                elif isinstance(event, RejectData):
                    body += event.data
            if status and (not data or len(body) > MAX_REFUSAL or connection.state is ConnectionState.CLOSED):
                raise Refused(status, body)
            if not data:
                raise WebSocketBroken("it closed the connection instead of an answer")

    async def receive(self) -> bytes:
        """The next bytes; b"" once the peer has closed. Raises `WebSocketBroken`, and what the stream raises."""
        while not self._ended:
            received: list[bytes] = []
            for event in self._connection.events():
                match event:
                    case BytesMessage():
                        received.append(bytes(event.data))
                    case Ping():
                        self._owe(event.response())
                    case CloseConnection():
                        self._ended = True
                        if self._connection.state is ConnectionState.REMOTE_CLOSING:
                            self._owe(event.response())
                    case TextMessage():
                        raise WebSocketBroken("text where only bytes belong")
            if received:
                await trio.lowlevel.checkpoint()
                return b"".join(received)
            if self._ended:
                break
            data = bytes(await self._stream.receive_some(CHUNK))
            if not data:
                self._ended = True
                break
            self._connection.receive_data(data)
        await trio.lowlevel.checkpoint()
        return b""

    @property
    def ended(self) -> bool:
        """Whether the peer has said that nothing more will come. What it said before may not have been received yet."""
        return self._ended

    @property
    def owes(self) -> bool:
        return bool(self._owed)

    async def send(self, data: bytes = b"") -> None:
        """Send what is owed, and `data` as one message. Does not yield when the stream takes it at once. Raises what the
        stream raises, and `trio.BrokenResourceError` when the peer has closed.
        """
        owed, self._owed = self._owed, b""
        if data and self._connection.state is not ConnectionState.OPEN:
            raise trio.BrokenResourceError
        message = self._connection.send(BytesMessage(data=data)) if data else b""
        await self._stream.send_all(owed + message)

    def _owe(self, event: Pong | CloseConnection) -> None:
        if len(self._owed) > MAX_OWED:
            raise WebSocketBroken("it pings without end")
        self._owed += self._connection.send(event)
        self.wake()

    async def close(self) -> None:
        """Say that nothing more will come. The stream stays open, for its owner to close."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, WsProtocolError):
            with trio.move_on_after(CLOSING):
                await self._stream.send_all(self._connection.send(CloseConnection(code=GOING_AWAY)))
