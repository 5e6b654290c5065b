"""The command line's HTTP client: one request per connection, with time limits, over the standard library.

Foreign exceptions are translated here, once: callers see `ClientError` with a message and a hint, or `RequestFailed` with
the code from the gateway's envelope.
"""

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import msgspec
from quiver.schemas.errors import INVALID_API_KEY, ErrorBody, ErrorEnvelope

from .address import DEFAULT_URL as DEFAULT_URL
from .address import Address, BadAddress

T = TypeVar("T")
# The gateway sends a heartbeat every 15 s while it works, so a stream that is silent for longer than this is dead.
TIMEOUT = 60.0
MAX_REST = 1024 * 1024
PIECE = 64 * 1024


class _Event(msgspec.Struct, frozen=True):
    """What this file looks for in an event of a stream."""

    error: ErrorBody | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_envelope = msgspec.json.Decoder(ErrorEnvelope).decode


class ClientError(Exception):
    """The gateway cannot be reached, or does not speak as a gateway does. `hint` says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class RequestFailed(Exception):
    """The gateway answered with an error."""

    def __init__(self, status: int, error: ErrorBody) -> None:
        super().__init__(error.message)
        self.status, self.error = status, error


class Client:
    """Talks to the gateway at `url`, which may end in `/v1` or name a socket of this machine. Nothing stays open between
    calls. Where no key was given and the gateway wants one, it is asked for with `ask`, once.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        ask: Callable[[str], str | None] | None = None,
    ) -> None:
        try:
            self._address = Address.parse(url)
        except BadAddress as error:
            raise ClientError(str(error), f"write it as `{DEFAULT_URL}`") from None
        self._timeout, self._ask = timeout, ask
        self.url = self._address.url
        self._headers = {"Accept": "application/json"}
        if api_key is not None:
            self._authorize(api_key)

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    def get(self, path: str) -> bytes:
        """The body of a successful reply. Raises `ClientError`, `RequestFailed`."""
        return self.send("GET", path)

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a successful reply to `body`, which is JSON. Raises `ClientError`, `RequestFailed`."""
        with self._response(method, path, body) as response:
            return response.read()

    def pieces(self, path: str) -> Iterator[bytes]:
        """The body of a successful reply as it arrives. Raises `ClientError`, `RequestFailed`."""
        with self._response("GET", path) as response:
            while piece := response.read(PIECE):
                yield piece

    def stream(self, path: str, body: bytes | None = None, accept: str | None = None) -> Iterator[bytes]:
        """POST `body`, or GET where there is none; the data of each server-sent event as it arrives, without the closing
        `[DONE]`. `accept`: where events have to be asked for.

        Raises `ClientError`, also when the stream ends too early, and `RequestFailed`, also for an error inside it.
        """
        with self._response("GET" if body is None else "POST", path, body, accept) as response:
            while line := response.readline():
                data = _event_data(line)
                if data == b"[DONE]":
                    response.read(MAX_REST)  # the end of the body, so that the gateway sees a client that stayed
                    return
                if data is not None:
                    _raise_error_event(data)
                    yield data
        raise ClientError("the connection ended before the answer was complete")

    @contextmanager
    def _response(
        self, method: str, path: str, body: bytes | None = None, accept: str | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        with ExitStack() as stack:
            try:
                response = stack.enter_context(self._reply(method, path, body, accept))
            except RequestFailed as failure:
                key = self._missing_key(failure)
                if key is None:
                    raise
                self._authorize(key)
                response = stack.enter_context(self._reply(method, path, body, accept))
            yield response

    @contextmanager
    def _reply(
        self, method: str, path: str, body: bytes | None, accept: str | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._address.connection(self._timeout)
        try:
            with self._translated():
                headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
                headers |= {"Accept": accept} if accept is not None else {}
                connection.request(method, self._address.base + path, body, headers)
                response = connection.getresponse()
                if response.status >= 300:
                    raise _failure(response)
                yield response
        finally:
            connection.close()

    def _missing_key(self, failure: RequestFailed) -> str | None:
        """The key that the gateway asks for, where none was given and there is somebody to ask."""
        asked, self._ask = self._ask, None
        if asked is None or failure.error.code != INVALID_API_KEY.code or "Authorization" in self._headers:
            return None
        return asked(self.url)

    def _authorize(self, key: str) -> None:
        if not (key.isascii() and key.isprintable()):
            raise ClientError("the API key has characters that HTTP cannot carry")
        self._headers["Authorization"] = f"Bearer {key}"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Socket and protocol errors become `ClientError`."""
        try:
            yield
        except (ConnectionRefusedError, FileNotFoundError):
            raise ClientError(
                f"no gateway runs at {self.url}", "start one with `quiver serve`, or say where it is with QUIVER_URL"
            ) from None
        except TimeoutError:
            raise ClientError(f"{self.url} did not answer within {self._timeout:g} s") from None
        except socket.gaierror:
            raise ClientError(f"the host `{self._address.host}` is not known", "check `--url` or QUIVER_URL") from None
        except ssl.SSLError as error:
            raise ClientError(f"no secure connection to {self.url}: {error.reason}") from None
        except http.client.IncompleteRead:
            raise ClientError("the connection ended before the answer was complete") from None
        except http.client.HTTPException:
            raise ClientError(f"{self.url} does not answer in HTTP", "check `--url` or QUIVER_URL") from None
        except OSError as error:
            raise ClientError(f"the connection to {self.url} failed: {error.strerror or error}") from None


def decoded(body: bytes, kind: type[T]) -> T:
    """What a gateway's reply says. Raises `ClientError` when it is no gateway's."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        raise ClientError("what answered is no Quiver gateway", "check `--url` or QUIVER_URL") from None


def _event_data(line: bytes) -> bytes | None:
    """The data of one line of an event stream. Quiver and OpenAI send each event's data on one line."""
    return line[5:].strip() if line.startswith(b"data:") else None


def _raise_error_event(data: bytes) -> None:
    try:
        error = _decode_event(data).error
    except msgspec.DecodeError:
        return  # whoever takes the event finds that out
    if error is not None:
        raise RequestFailed(200, error)


def _failure(response: http.client.HTTPResponse) -> Exception:
    """The error for a reply with an error status."""
    body = response.read(MAX_REST)
    try:
        return RequestFailed(response.status, _decode_envelope(body).error)
    except msgspec.DecodeError:
        return ClientError(
            f"what answered is no Quiver gateway (status {response.status})", "check `--url` or QUIVER_URL"
        )
