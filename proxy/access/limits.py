"""Holding clients to their limits: one request from the bucket, tokens by reserving first and settling after.

A limit that is checked and then spent lets through whatever arrives between the two. Here the check is the spending, in
one synchronous step, so no interleaving of requests overspends.
"""

from math import ceil
from typing import Protocol

from quiver.schemas.errors import RATE_LIMITED, TOKENS_LIMITED, ApiError

from .buckets import TokenBucket, per_minute

Header = tuple[bytes, bytes]


class Limited(Protocol):
    """What `admit_request` needs of a client."""

    @property
    def requests(self) -> TokenBucket | None: ...

    def limit_headers(self, now: float) -> list[Header]: ...


def admit_request(client: Limited, now: float) -> None:
    """Take one request from the client's bucket.

    Raises `ApiError` (429 `rate_limit_exceeded`) when it holds less than one. `retry_after` is then the wait in whole
    seconds, rounded up.
    """
    bucket = client.requests
    if bucket is None or bucket.take(1, now):
        return
    seconds = _whole_seconds(bucket.wait(1, now))
    raise ApiError(
        RATE_LIMITED,
        f"Too many requests: {bucket.capacity:.0f} a minute allowed; try again in {seconds} s",
        retry_after=seconds,
        extra=client.limit_headers(now),
    )


class TokenBudget:
    """So many tokens a minute, prompts and replies together, full at `now`."""

    __slots__ = ("_headers", "bucket")

    def __init__(self, tokens_per_minute: int, now: float) -> None:
        self.bucket = per_minute(tokens_per_minute, now)
        self._headers = LimitHeaders(b"tokens", self.bucket)

    def __repr__(self) -> str:
        return f"<TokenBudget: {self.bucket!r}>"

    def reserve(self, estimate: int, now: float) -> "Reservation":
        """Take `estimate` tokens ahead of use. The caller settles the reservation once the use is known, whatever happens.

        Raises `ApiError` (429 `token_limit_exceeded`) when that much is not there, with `retry_after` unless the whole
        budget is smaller than the estimate.
        """
        if self.bucket.take(estimate, now):
            return Reservation(self, estimate)
        whole = f"{self.bucket.capacity:.0f}"
        headers = self.headers(now)
        if estimate > self.bucket.capacity:
            message = f"The request may need {estimate} tokens, more than the {whole} allowed in a minute"
            raise ApiError(TOKENS_LIMITED, message, extra=headers)
        seconds = _whole_seconds(self.bucket.wait(estimate, now))
        message = f"The limit is {whole} tokens a minute, and the request may need {estimate}; try again in {seconds} s"
        raise ApiError(TOKENS_LIMITED, message, retry_after=seconds, extra=headers)

    def change(self, tokens_per_minute: int, now: float) -> None:
        """Another limit; the share that is left stays, and reservations are settled as if it had always been so."""
        self.bucket.resize(tokens_per_minute, tokens_per_minute / 60, now)
        self._headers = LimitHeaders(b"tokens", self.bucket)

    def headers(self, now: float) -> list[Header]:
        """The three reply headers that tell of this limit."""
        return self._headers.at(now)


class Reservation:
    """Tokens taken ahead of use. Until it is settled the whole estimate counts as used."""

    __slots__ = ("_budget", "estimate", "settled")

    def __init__(self, budget: TokenBudget, estimate: int) -> None:
        self._budget, self.estimate = budget, estimate
        self.settled = False

    def __repr__(self) -> str:
        return f"<Reservation: {self.estimate} tokens{', settled' if self.settled else ''}>"

    def settle(self, actual: int | None, now: float) -> None:
        """Give back what was not used and charge what was used beyond the estimate; None: unknown, the estimate stands.

        Only the first call counts. A negative `actual`, which only a faulty server reports, is none used.
        """
        if self.settled:
            return
        self.settled = True
        if actual is not None:
            self._budget.bucket.settle(self.estimate, max(actual, 0), now)


class LimitHeaders:
    """A bucket's limit, what remains, and the time until it is full again, named as OpenAI names them."""

    __slots__ = ("_bucket", "_limit", "_remaining", "_reset")

    def __init__(self, unit: bytes, bucket: TokenBucket) -> None:
        self._bucket = bucket
        self._limit = (b"x-ratelimit-limit-" + unit, b"%d" % bucket.capacity)
        self._remaining, self._reset = b"x-ratelimit-remaining-" + unit, b"x-ratelimit-reset-" + unit

    def at(self, now: float) -> list[Header]:
        """Exact at `now`."""
        bucket = self._bucket
        level = bucket.level(now)
        full = level >= bucket.capacity
        return [
            self._limit,
            (self._remaining, b"%d" % level if level > 0 else b"0"),
            (self._reset, b"0s" if full else duration(bucket.wait(bucket.capacity, now))),
        ]


def duration(seconds: float) -> bytes:
    """A time as OpenAI writes it in these headers: `0s`, `120ms`, `1.5s`, `2m30s`, `1h0m0s`; to the millisecond."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return b"%dms" % milliseconds if milliseconds else b"0s"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    rest = b"%gs" % (milliseconds / 1000)
    if minutes < 60:
        return b"%dm%b" % (minutes, rest) if minutes else rest
    return b"%dh%dm%b" % (*divmod(minutes, 60), rest)


def _whole_seconds(seconds: float) -> int:
    return max(1, ceil(seconds))
