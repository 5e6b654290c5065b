"""The answers that can be given again: those in flight, and those kept since.

Synchronous and without a clock. Kept answers live in memory, the least recently used leave first, and none is given out
longer after it was finished than the time it may live.
"""

from collections import OrderedDict

import msgspec
from quiver.schemas import errors
from quiver.schemas.config import Reuse
from quiver.schemas.errors import ApiError

from .identity import ALLOW_ALL, Directives
from .recording import Recording

# What an entry costs beside its bytes, so that many small answers are bounded too: CPython's objects, rounded up.
ENTRY_OVERHEAD = 1536
# A stream that ends without this was cut, however cleanly.
LAST_EVENT = b"data: [DONE]"
# Servers tell of errors in a stream, or with status 200, too. Inside a JSON string the quotes would be escaped.
TOLD_ERRORS = (b'"error":{', b'"error": {', b'"object":"error"', b'"object": "error"')


class Kept(msgspec.Struct, frozen=True):
    """A finished answer, and when it was finished, in seconds on Trio's clock."""

    recording: Recording
    at: float


class ReuseStatistics(msgspec.Struct, frozen=True):
    """Now: shareable answers `in_flight`, answers `kept` and the `bytes` they take. Since the start: requests answered from
    a kept answer (`hits`), from one in flight (`shared`), from neither (`misses`); answers that left for lack of room
    (`evicted`) or by age (`expired`).
    """

    in_flight: int
    kept: int
    bytes: int
    hits: int
    shared: int
    misses: int
    evicted: int
    expired: int


class ReuseStore:
    """Finds answers that exist, and takes in new ones. Every `begin` is followed by one `finish` or `abandon`."""

    def __init__(self, config: Reuse) -> None:
        self._config = config
        self._in_flight: dict[bytes, Recording] = {}
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._bytes = 0
        self._cleared_at = float("-inf")
        self._hits = self._shared = self._misses = self._evicted = self._expired = 0

    def __repr__(self) -> str:
        return f"<ReuseStore: {len(self._in_flight)} in flight, {len(self._kept)} kept, {self._bytes} bytes>"

    def configure(self, config: Reuse, now: float) -> None:
        """From now on other bounds hold, for kept answers too."""
        self._config = config
        if not config.cache:
            self._kept.clear()
            self._bytes = 0
        self._make_room(now)

    def applies(self, directives: Directives = ALLOW_ALL) -> bool:
        """Whether anything can be reused for such a request, or later from it. If not, it needs no recording."""
        config = self._config
        caches = config.cache and (directives.read or directives.store)
        return config.max_entry > 0 and ((config.share and directives.share) or caches)

    def find(self, key: bytes, now: float, directives: Directives = ALLOW_ALL) -> Recording | None:
        """The answer to the request with identity `key`: a kept one (it is `finished`), or one in flight. None: `begin` one."""
        if self._config.cache and directives.read:
            kept = self._fresh(key, now)
            if kept is not None and (directives.max_age is None or now - kept.at <= directives.max_age):
                self._kept.move_to_end(key)
                self._hits += 1
                return kept.recording
        running = self._in_flight.get(key)
        if running is not None and directives.share and running.joinable:
            self._shared += 1
            return running
        self._misses += 1
        return None

    def begin(self, key: bytes, now: float, directives: Directives = ALLOW_ALL) -> Recording:
        """A new recording for the answer to `key`, found by others from now on, if it is to be shared."""
        recording = Recording(key, now, self._config.max_entry, directives)
        if self._config.share and directives.share:
            self._in_flight[key] = recording
        return recording

    def finish(self, recording: Recording, now: float) -> None:
        """Production is over: keep the answer if it is whole, good and not too large. One without an end is abandoned."""
        if not recording.finished:
            self.abandon(recording)
            return
        self._no_longer_in_flight(recording)
        if self._keepable(recording):
            self._keep(Kept(recording, now))

    def abandon(self, recording: Recording) -> None:
        """Production was given up. Clients that still wait are told of an internal error: tell `Recording.fail` a better one
        before, where there is one.
        """
        self._no_longer_in_flight(recording)
        recording.fail(ApiError(errors.INTERNAL_ERROR, "The answer that identical requests shared was given up"))

    def clear(self, now: float) -> None:
        """Forget all answers. Those in flight go on for the clients they have; nobody joins them and they are not kept."""
        self._in_flight.clear()
        self._kept.clear()
        self._bytes = 0
        self._cleared_at = now

    def statistics(self) -> ReuseStatistics:
        return ReuseStatistics(
            in_flight=len(self._in_flight),
            kept=len(self._kept),
            bytes=self._bytes,
            hits=self._hits,
            shared=self._shared,
            misses=self._misses,
            evicted=self._evicted,
            expired=self._expired,
        )

    def _fresh(self, key: bytes, now: float) -> Kept | None:
        kept = self._kept.get(key)
        if kept is None or now - kept.at < self._config.ttl:
            return kept
        self._forget(key)
        self._expired += 1
        return None

    def _keepable(self, recording: Recording) -> bool:
        if not (self._config.cache and recording.directives.store and recording.begun > self._cleared_at):
            return False
        if not (recording.ok and recording.status == 200 and recording.joinable):
            return False
        if _cost(recording) > self._config.max_bytes:
            return False
        body = recording.body
        whole = not recording.streams or body.rstrip().endswith(LAST_EVENT)
        return whole and not any(mark in body for mark in TOLD_ERRORS)

    def _keep(self, kept: Kept) -> None:
        key = kept.recording.key
        if key in self._kept:
            self._forget(key)
        self._kept[key] = kept
        self._bytes += _cost(kept.recording)
        self._make_room(kept.at)

    def _make_room(self, now: float) -> None:
        """Drop the least recently used while there are too many bytes, or while they are too old to be given out."""
        while self._kept:
            oldest = next(iter(self._kept))
            if now - self._kept[oldest].at >= self._config.ttl:
                self._expired += 1
            elif self._bytes > self._config.max_bytes:
                self._evicted += 1
            else:
                return
            self._forget(oldest)

    def _forget(self, key: bytes) -> None:
        self._bytes -= _cost(self._kept.pop(key).recording)

    def _no_longer_in_flight(self, recording: Recording) -> None:
        # A recording that could not be joined any more may have been followed by another of the same key.
        if self._in_flight.get(recording.key) is recording:
            del self._in_flight[recording.key]


def _cost(recording: Recording) -> int:
    return recording.size + ENTRY_OVERHEAD
