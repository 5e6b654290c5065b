"""A client's end of a connection: what is written to it and read from it, and who gets what is not inference."""

from quiver.proxy.network import Wire


class RecordingControl:
    """Stands where Hypercorn is: keeps the bytes it was handed."""

    def __init__(self) -> None:
        self.prefixes: list[bytes] = []

    async def serve(self, wire: Wire, prefix: bytes) -> None:
        self.prefixes.append(prefix)
        await wire.send_all(b"handed over")


def post(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def read_until_close(client: Wire) -> bytes:
    received = b""
    while data := await client.receive_some():
        received += bytes(data)
    return received


async def receive_reply(client: Wire) -> bytes:
    """Up to the end of one reply with a Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += bytes(await client.receive_some())
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += bytes(await client.receive_some())
    return body
