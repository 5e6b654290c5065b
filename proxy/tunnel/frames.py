"""The tunnel's frames on the wire: kind, stream and length, then so many bytes.

Frames follow each other without regard to the messages that carry them, so a message may hold many or a part of one.
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

# Where a gateway takes joiners' WebSockets.
JOIN_PATH = "/admin/join"
# The largest frame; room for an offer with very many models.
MAX_PAYLOAD = 65_536
# The largest stream: ids are counted up and never used again.
MAX_STREAM = 2**32 - 1

_HEADER = Struct(">BII")
HEADER_SIZE = _HEADER.size
_WINDOW = Struct(">I")


class Kind(IntEnum):
    """What a frame says. Those from `OPEN` on are about a stream, the others about the whole tunnel."""

    OFFER = 1
    WELCOME = 2
    GOODBYE = 3
    PING = 4
    PONG = 5
    PAUSE = 6
    RESUME = 7
    TALLY = 8
    OPEN = 16
    OPENED = 17
    DATA = 18
    EOF = 19
    RESET = 20
    WINDOW = 21


class ProtocolError(Exception):
    """The peer broke a rule of the tunnel; which one."""


class Frame(NamedTuple):
    """One frame. `stream` is 0 for those about the whole tunnel."""

    kind: Kind
    stream: int
    payload: bytes


_KINDS: dict[int, Kind] = {kind.value: kind for kind in Kind}


def encode(kind: Kind, stream: int = 0, payload: bytes | bytearray = b"") -> bytes:
    """A frame's bytes."""
    return _HEADER.pack(kind, stream, len(payload)) + payload


def encode_window(stream: int, size: int) -> bytes:
    """A `WINDOW` frame that lets the peer send `size` more bytes."""
    return encode(Kind.WINDOW, stream, _WINDOW.pack(size))


def window_size(payload: bytes) -> int:
    """What a `WINDOW` frame grants. Raises `ProtocolError`."""
    if len(payload) != _WINDOW.size:
        raise ProtocolError(f"a WINDOW frame of {len(payload)} bytes")
    size: int = _WINDOW.unpack(payload)[0]
    if not size:
        raise ProtocolError("a WINDOW frame that grants nothing")
    return size


class FrameReader:
    """Cuts what arrives into frames. Holds less than one frame."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises `ProtocolError`: unknown kinds, wrong streams, oversized frames."""
        data = self._rest + data if self._rest else data
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= HEADER_SIZE:
            number, stream, length = _HEADER.unpack_from(data, at)
            kind = _KINDS.get(number)
            if kind is None:
                raise ProtocolError(f"a frame of the unknown kind {number}")
            if length > MAX_PAYLOAD:
                raise ProtocolError(f"a {kind.name} frame of {length} bytes; {MAX_PAYLOAD} are allowed")
            if (stream == 0) == (kind >= Kind.OPEN):
                raise ProtocolError(f"a {kind.name} frame for the stream {stream}")
            if end - at - HEADER_SIZE < length:
                break
            at += HEADER_SIZE
            frames.append(Frame(kind, stream, data[at : at + length]))
            at += length
        self._rest = data[at:]
        return frames
