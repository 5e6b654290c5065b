"""What is kept of one request: the value that accounting writes and metrics count."""

from dataclasses import dataclass
from typing import Literal

from quiver.schemas.openai import Usage

Outcome = Literal["completed", "failed", "client_gone", "cancelled"]


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one request. Times in seconds; no prompt, no key."""

    request_id: str
    endpoint: str
    model: str | None
    server_id: str | None
    stream: bool
    status: int
    outcome: Outcome
    error: str | None
    attempts: int
    duration: float
    first_byte: float | None
    usage: Usage | None


@dataclass(slots=True)
class Progress:
    """What the record will say, while the request is still being worked on."""

    request_id: str
    endpoint: str
    began: float
    model: str | None = None
    stream: bool = False
    attempts: int = 0
    error: str | None = None
    outcome: Outcome = "cancelled"
