"""What the owner of a join is shown: a line that is kept up to date on a terminal, a line a turn elsewhere, or JSON."""

import sys
import time
from datetime import datetime

import typer
from quiver.schemas.join import JoinStatus

from ..cli.console import harmless, print_json

CLEAR = "\r\x1b[K"


class Screen:
    """Shows how a join stands. `as_json`: one line of JSON a turn on stdout, nothing else."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.live = sys.stderr.isatty() and not as_json
        self._said: tuple[object, ...] = ()

    def show(self, status: JoinStatus) -> None:
        """Say what is new."""
        turn = (status.state, status.paused, status.reason)
        again = status.state == "connecting" and status.reason is not None and not self._as_json
        if turn != self._said and not again:
            self._said = turn
            if self._as_json:
                print_json(status)
                sys.stdout.flush()
            else:
                said = f"{datetime.now():%H:%M:%S} {harmless(sentence(status))}"
                typer.echo(f"{CLEAR if self.live else ''}{said}", err=True)
        if self.live:
            typer.echo(CLEAR + line(status), err=True, nl=False)

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self.live:
            typer.echo(CLEAR, err=True, nl=False)


def sentence(status: JoinStatus) -> str:
    """One turn of a join, in words."""
    match status.state:
        case "connecting":
            return f"connecting to {status.gateway}"
        case "joined":
            paused = ", paused: it gets no new requests" if status.paused else ""
            return f"joined {status.gateway} as `{status.name}`, offering {status.server}{paused}"
        case "waiting":
            seconds = max((status.retry_at or 0.0) - time.time(), 0.0)
            return f"{status.reason}; trying again in {seconds:.1f} s"
        case "leaving":
            return "leaving once open requests are over"
        case "left":
            return "left"


def line(status: JoinStatus) -> str:
    """How a join stands, in one short line."""
    if status.state != "joined":
        return f"{status.state}  [q] leave"
    parts = ["paused" if status.paused else "joined", f"for {_span(time.time() - status.since)}"]
    if status.tally is not None:
        tally = status.tally
        parts += [f"{tally.in_flight} in flight", f"{tally.served} served", f"{tally.tokens} tokens"]
        if tally.failed:
            parts.append(f"{tally.failed} failed")
    if status.round_trip is not None:
        parts.append(f"{status.round_trip * 1000:.0f} ms away")
    parts.append(f"[{'r] resume' if status.paused else 'p] pause'}  [q] leave")
    return "  ".join(parts)


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
