"""The server's side of one simulated HTTP/1.1 connection, by h11: an implementation that shares nothing with ours."""

from collections.abc import Sequence

import h11
import trio

from ..network import Wire
from .network import connection_number

Fields = Sequence[tuple[str, str]]


class PeerLeft(Exception):
    """Whoever asked closed the connection."""


class Conversation:
    """Requests come in, replies go out, one after another. `ended`: the peer will send no more."""

    def __init__(self, wire: Wire) -> None:
        self.connection = connection_number(wire)
        self.ended = False
        self._wire = wire
        self._http = h11.Connection(h11.SERVER)

    def __repr__(self) -> str:
        return f"<Conversation #{self.connection}: {self._http.our_state!r}{', ended' if self.ended else ''}>"

    async def request(self) -> tuple[h11.Request, bytes] | None:
        """The next request and its body; None when the peer has no more. Raises `h11.RemoteProtocolError`."""
        request: h11.Request | None = None
        body = b""
        while True:
            match event := self._http.next_event():
                case h11.NEED_DATA:
                    data = await self._wire.receive_some()
                    self.ended = not data
                    self._http.receive_data(data)
                case h11.Request():
                    request = event
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    assert request is not None
                    return request, body
                case _:
                    return None

    async def begin(self, status: int, fields: Fields, *, close_delimited: bool = False) -> None:
        """Send a head. A `close_delimited` body goes out by `send_raw` and ends with the connection."""
        if close_delimited:
            lines = [f"HTTP/1.1 {status} OK", "Connection: close", *(f"{name}: {value}" for name, value in fields)]
            await self.send_raw("\r\n".join([*lines, "", ""]).encode())
        else:
            await self._send(h11.Response(status_code=status, headers=list(fields)))

    async def data(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """The reply is whole."""
        await self._send(h11.EndOfMessage())

    async def send_raw(self, data: bytes) -> None:
        """Send bytes that h11 would not."""
        await self._wire.send_all(data)

    async def reply(self, status: int, body: bytes, fields: Fields = ()) -> None:
        """Send a whole reply."""
        length = ("content-length", str(len(body)))
        head = self._http.send(h11.Response(status_code=status, headers=[length, *fields])) or b""
        rest = [self._http.send(event) or b"" for event in (h11.Data(data=body), h11.EndOfMessage())]
        await self._wire.send_all(b"".join((head, *rest)))

    async def pause(self, seconds: float) -> None:
        """Do nothing for that long. Raises `PeerLeft` as soon as the peer is gone."""
        if not seconds:
            return
        with trio.move_on_after(seconds):
            while data := await self._wire.receive_some():
                self._http.receive_data(data)
            self.ended = True
            raise PeerLeft

    def next_cycle(self) -> bool:
        """Get ready for another request; whether there may be one."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _send(self, event: h11.Event) -> None:
        await self._wire.send_all(self._http.send(event) or b"")
