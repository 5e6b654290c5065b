"""A server's circuit: what its answers say about it, and so whether it should get requests.

Everything here is synchronous and plain values. Times are seconds on Trio's clock and passed in, as is randomness. Active
checks and traffic tell the same circuit what happened; an attempt that began before the server was last taken out is old news
and changes nothing, so that requests in flight at that moment neither lengthen its time out nor end it.
"""

from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Literal

import msgspec
from quiver.schemas.config import Health as HealthConfig
from quiver.schemas.errors import ApiError

from .tally import Tally

State = Literal["unknown", "healthy", "suspect", "ejected", "half_open", "disabled"]
Event = Literal["success", "failure", "threshold", "credential_refused", "cut_off", "trial_begun", "trial_dropped"]
Shown = Literal["healthy", "unhealthy", "unknown"]
Source = Literal["check", "traffic"]
Blame = Literal["failure", "pause", "credential", "none"]

# `threshold` is the failure that reaches `health.failures` in a row; `trial_dropped` is a trial that ended without a verdict.
# Who is out stays out when it fails again. In `half_open` a trial is under way: its failure is always a `threshold`.
TRANSITIONS: dict[State, dict[Event, State]] = {
    "unknown": {
        "success": "healthy",
        "failure": "suspect",
        "threshold": "ejected",
        "credential_refused": "disabled",
        "cut_off": "disabled",
    },
    "healthy": {
        "success": "healthy",
        "failure": "suspect",
        "threshold": "ejected",
        "credential_refused": "disabled",
        "cut_off": "disabled",
    },
    "suspect": {
        "success": "healthy",
        "failure": "suspect",
        "threshold": "ejected",
        "credential_refused": "disabled",
        "cut_off": "disabled",
    },
    "ejected": {
        "success": "healthy",
        "threshold": "ejected",
        "credential_refused": "disabled",
        "cut_off": "disabled",
        "trial_begun": "half_open",
    },
    "half_open": {
        "success": "healthy",
        "threshold": "ejected",
        "credential_refused": "disabled",
        "cut_off": "disabled",
        "trial_dropped": "ejected",
    },
    "disabled": {
        "success": "healthy",
        "failure": "disabled",
        "threshold": "disabled",
        "credential_refused": "disabled",
        "cut_off": "disabled",
    },
}

# Which servers go first. An ejected one whose time is over may have one trial, and then counts as a suspect.
TIERS: dict[State, int] = {"healthy": 0, "unknown": 1, "suspect": 2, "ejected": 3, "half_open": 3, "disabled": 3}

SHOWN: dict[State, Shown] = {
    "unknown": "unknown",
    "healthy": "healthy",
    "suspect": "unhealthy",
    "ejected": "unhealthy",
    "half_open": "unhealthy",
    "disabled": "unhealthy",
}

# What the gateway itself found wrong, by its code in the catalogue. Codes that are not here are not the server's doing: the
# client's mistakes, the gateway's own, and a request that used up its time, which a long answer may do without any fault.
BLAME_BY_CODE: dict[str, Blame] = {
    "upstream_unreachable": "failure",
    "upstream_forbidden": "failure",
    "upstream_unauthorized": "credential",
    "upstream_busy": "pause",
    "upstream_malformed": "failure",
    "upstream_truncated": "failure",
    "upstream_error": "failure",
    "upstream_timeout": "failure",
}

# What the server answered. Other statuses below 500 are the client's mistakes, from 500 on the server's failures.
BLAME_BY_STATUS: dict[int, Blame] = {401: "credential", 403: "credential", 429: "pause"}

HISTORY = 100
# Spreads the returns of servers that failed together (gRPC's range for back-off).
JITTER = 0.2


def classify(error: ApiError, status: int | None = None) -> Blame:
    """What `error` says about the server; `status` is the one it answered with, None when it did not answer."""
    if status is None:
        return BLAME_BY_CODE.get(error.kind.code, "none")
    return BLAME_BY_STATUS.get(status, "failure" if status >= 500 else "none")


class Result(msgspec.Struct, frozen=True):
    """How one attempt ended: when (Trio's clock), after how many seconds, and why it failed."""

    at: float
    ok: bool
    seconds: float
    reason: str | None
    source: Source


class CircuitStatistics(msgspec.Struct, frozen=True):
    """A circuit at one moment. Times are on Trio's clock; what no check has told yet is None.

    `success_rate` and `mean_seconds` cover the checks in the history, `uptime` the share of time since the first result in
    which the server was healthy.
    """

    state: State
    health: Shown
    reason: str | None
    since: float | None
    until: float
    failures: int
    checked_at: float | None
    success_rate: float | None
    mean_seconds: float | None
    uptime: float | None


def _ignore(*news: object) -> None:
    """Nobody is told."""


class Circuit:
    """One server's standing.

     `state` is a row of `TRANSITIONS`, entered at `since`; `reason` says why the server is not healthy; `until` is the end of
     its time out, 0 when it is not out; `failures` counts those in a row. `history` keeps the last 100 results, without the
     successes of traffic that changed nothing. `on_change` is called after each change of state, `on_result` with each result
    that goes into the history. `tally` counts for the metrics.

     Consecutive failures eject, for a time that doubles (Linkerd's failure accrual): with few servers and long requests the
     statistical methods never have enough to go by. The time falls back to the first after a healthy `interval`.
    """

    __slots__ = (
        "_config",
        "_first_at",
        "_healthy_for",
        "_next_ejection",
        "_out_at",
        "_pauses",
        "_random",
        "failures",
        "history",
        "on_change",
        "on_result",
        "reason",
        "since",
        "state",
        "tally",
        "until",
    )

    def __init__(self, config: HealthConfig, random: Random) -> None:
        self._config, self._random = config, random
        self.state: State = "unknown"
        self.reason: str | None = None
        self.since: float | None = None
        self.until = 0.0
        self.failures = 0
        self.history: deque[Result] = deque(maxlen=HISTORY)
        self.on_change: Callable[[], None] = _ignore
        self.on_result: Callable[[Result], None] = _ignore
        self.tally = Tally()
        self._first_at: float | None = None
        self._healthy_for = 0.0
        self._next_ejection = min(config.ejection, config.max_ejection)
        self._out_at = float("-inf")
        self._pauses: dict[str, float] = {}

    def __repr__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"<Circuit {self.state}, {self.failures} failures{reason}>"

    @property
    def health(self) -> Shown:
        """The state in the words of the API."""
        return SHOWN[self.state]

    def tier(self, now: float) -> int:
        """Servers of the lowest tier go first: 0 healthy, 1 unknown, 2 suspect or free for a trial, 3 out of service."""
        if self.state == "ejected" and now >= self.until:
            return TIERS["suspect"]
        return TIERS[self.state]

    def recall(self, history: Iterable[Result]) -> None:
        """These results are from before the gateway was started."""
        self.history.extend(history)

    def suspect(self, state: str, reason: str | None) -> None:
        """It was in `state` before the gateway was started. Who was not well then has to prove itself: it gets requests when
        no other server can take them, and one more failure takes it out.
        """
        if state == "disabled":
            self.state, self.reason = "disabled", reason
        elif state in ("suspect", "ejected", "half_open"):
            self.state, self.reason = "suspect", reason
            self.failures = self._config.failures - 1

    def begin_trial(self, now: float) -> bool:
        """Whether the attempt that begins now is the one trial after an ejection; if so, it must end with `end_trial`."""
        if self.state != "ejected" or now < self.until:
            return False
        self._move("trial_begun", now)
        return True

    def end_trial(self, began: float) -> None:
        """The trial of `began` is over, whatever came of it. Without a verdict, cancelled for one, another may begin."""
        if self.state == "half_open" and self.since == began:
            self._move("trial_dropped", began)

    def passed(self, now: float, *, began: float | None = None, source: Source = "traffic") -> None:
        """An attempt that began at `began` (now, if unset) went well."""
        if self.state == "healthy" and source == "traffic":
            return
        if self._noted(now, began, source, None):
            self.failures, self.reason, self.until = 0, None, 0.0
            self._move("success", now)

    def failed(self, reason: str, now: float, *, began: float | None = None, source: Source = "traffic") -> None:
        """An attempt failed through the server's fault."""
        if self._noted(now, began, source, reason):
            self.failures, self.reason = self.failures + 1, reason
            self._move("threshold" if self.failures >= self._config.failures else "failure", now)

    def refused_credential(
        self, reason: str, now: float, *, began: float | None = None, source: Source = "traffic"
    ) -> None:
        """The server refused the gateway's own key. It gets no traffic until a check passes."""
        if self._noted(now, began, source, reason):
            self.reason = reason
            self._move("credential_refused", now)

    def cut_off(self, reason: str, now: float) -> None:
        """There is no way to the server any more. It gets no traffic until a check passes."""
        if self._noted(now, None, "traffic", reason):
            self.reason = reason
            self._move("cut_off", now)

    def pause(self, model: str, seconds: float, now: float) -> None:
        """The server asked for a pause (429). Other models are not concerned, and it is no failure.

        A pause never shortens an earlier one, and lasts no longer than an ejection: the server's word is not trusted with more.
        """
        self._pauses = {name: until for name, until in self._pauses.items() if until > now}
        self._pauses[model] = max(self.paused_until(model), now + min(seconds, self._config.max_ejection))

    def configure(self, config: HealthConfig) -> None:
        """From now on other numbers hold; what has happened stays."""
        self._config = config
        self._next_ejection = min(self._next_ejection, config.max_ejection)

    def paused_until(self, model: str) -> float:
        """When the last pause of `model` is over; 0 if there was none."""
        return self._pauses.get(model, 0.0)

    def statistics(self, now: float) -> CircuitStatistics:
        checks = [result for result in self.history if result.source == "check"]
        return CircuitStatistics(
            state=self.state,
            health=self.health,
            reason=self.reason,
            since=self.since,
            until=self.until,
            failures=self.failures,
            checked_at=checks[-1].at if checks else None,
            success_rate=sum(result.ok for result in checks) / len(checks) if checks else None,
            mean_seconds=sum(result.seconds for result in checks) / len(checks) if checks else None,
            uptime=self._uptime(now),
        )

    def _uptime(self, now: float) -> float | None:
        if self._first_at is None:
            return None
        healthy = self._healthy_for + (self._in_state(now) if self.state == "healthy" else 0.0)
        total = now - self._first_at
        return healthy / total if total > 0 else float(self.state == "healthy")

    def _in_state(self, now: float) -> float:
        return now - self.since if self.since is not None else 0.0

    def _noted(self, now: float, began: float | None, source: Source, reason: str | None) -> bool:
        """Write the result into the history. False if it is old news."""
        if began is None:
            began = now
        if began < self._out_at:
            return False
        if self._first_at is None:
            self._first_at = now
        result = Result(now, reason is None, now - began, reason, source)
        self.history.append(result)
        self.on_result(result)
        return True

    def _move(self, event: Event, now: float) -> None:
        before, state = self.state, TRANSITIONS[self.state][event]
        if before == "healthy" != state:
            self._healthy_for += self._in_state(now)
            if self._in_state(now) >= self._config.interval:
                self._next_ejection = min(self._config.ejection, self._config.max_ejection)
        if state == "disabled" or (state == "ejected" != before and event != "trial_dropped"):
            self._take_out(now)
        if state != before:
            self.state, self.since = state, now
            self.tally.moved(state)
            self.on_change()

    def _take_out(self, now: float) -> None:
        longest = self._config.max_ejection
        self.until = now + min(self._next_ejection * self._random.uniform(1 - JITTER, 1 + JITTER), longest)
        self._next_ejection = min(self._next_ejection * 2, longest)
        self._out_at = now
