"""What is kept of one request: the value that accounting writes and metrics count."""

from typing import Literal

import msgspec
from quiver.schemas.openai import Usage

Outcome = Literal["completed", "failed", "client_gone", "cancelled"]
# Where an answer came from: a server for this request, another request in flight, or memory.
Source = Literal["server", "shared", "cache"]


class Record(msgspec.Struct, frozen=True):
    """What is kept of one request. `at`: Unix time of its end; times else in seconds. No prompt, no key: `client` is a
    key's name, or an address. `estimated`: the usage is our guess.
    """

    request_id: str
    at: float
    client: str
    endpoint: str
    model: str | None
    server_id: str | None
    stream: bool
    status: int
    outcome: Outcome
    error: str | None
    source: Source
    attempts: int
    queued: float
    duration: float
    first_byte: float | None
    usage: Usage | None
    estimated: bool


class Progress:
    """What the record will say, while the request is still being worked on."""

    client = ""
    model: str | None = None
    stream = False
    attempts = 0
    queued = 0.0
    error: str | None = None
    outcome: Outcome = "cancelled"
    source: Source = "server"

    def __init__(self, endpoint: str, began: float) -> None:
        self.endpoint, self.began = endpoint, began
