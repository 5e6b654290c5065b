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
