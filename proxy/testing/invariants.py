"""What must hold in every run, whatever befell it: each promise is a function from the evidence to its breaches."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from .evidence import Evidence
from .knobs import FORBIDDEN_HOST, PROBER_HOST
from .seen import Seen
from .upstream import PROMPT_TOKENS, Start

# What a request may take beyond its deadline: the refusal has to be written to a client that may be slow.
GRACE = 5.0
# From a client's departure to the end of its work upstream: two latencies and a tick.
DEPARTURE = 1.0
MINUTE = 60.0
EPSILON = 1e-6
OUT_OF_TIME = ("deadline_exceeded", "shutting_down")

Invariant = Callable[[Evidence], Iterator[str]]


def breaches(evidence: Evidence) -> list[str]:
    """Every breach of every promise."""
    return [breach for invariant in INVARIANTS for breach in invariant(evidence)]


def nothing_was_noticed(evidence: Evidence) -> Iterator[str]:
    """No complaint of anyone, and nothing left over at the moments when the run looked."""
    yield from evidence.noticed
    yield from evidence.clients.complaints
    yield from evidence.servers.complaints


def tokens_are_the_requests_own(evidence: Evidence) -> Iterator[str]:
    """None is lost, doubled, out of order or of another request."""
    for seen in evidence.clients.seen:
        expected = _generation(evidence, seen)
        if [place for *_, place in seen.tokens] != list(range(len(seen.tokens))):
            yield f"{seen} has tokens lost, doubled or out of order: {seen.tokens}"
        elif any(token[:2] != seen.tokens[0][:2] or token[0] != seen.ask.marker for token in seen.tokens):
            yield f"{seen} has tokens of another request: {seen.tokens}"
        elif seen.tokens and (expected is None or len(seen.tokens) > expected.made):
            yield f"{seen} has tokens that nobody generated"
        elif seen.done and (expected is None or len(seen.tokens) != expected.planned):
            yield f"{seen} was told of an end, of {expected}"


def replies_do_not_just_stop(evidence: Evidence) -> Iterator[str]:
    """A reply that is whole by its framing says that it is done, or what went wrong. Nobody waits in vain."""
    for seen in evidence.clients.seen:
        if seen.ending == "whole" and seen.status == 200 and not seen.done and seen.error is None:
            yield f"{seen} was truncated in silence"
        if seen.error in ("half an event", "an event after the last", "not JSON"):
            yield f"{seen} has {seen.error}"
        if _undisturbed(evidence, seen):
            if seen.ending == "patience":
                yield f"{seen} waited in vain"
            if _ended_inside_write(evidence, seen):
                continue
            if seen.ending == "cut":
                yield f"{seen} was cut off"
            if seen.ending == "closed" and _is_first(evidence, seen) and _has_room(evidence):
                yield f"{seen} got no answer"


def nonsense_is_refused(evidence: Evidence) -> Iterator[str]:
    """What is not HTTP gets an error that arrives, though its sender may have gone on sending."""
    for message, seen in evidence.clients.refused:
        if _undisturbed(evidence, seen) and _has_room(evidence) and not 400 <= seen.status < 600:
            yield f"{message[:70]!r} was answered with {seen}"


def content_ends_retries(evidence: Evidence) -> Iterator[str]:
    """A generation of which a client has seen anything is that request's last."""
    for seen in evidence.clients.seen:
        if seen.ask.shared or seen.first_content is None:
            continue
        starts = evidence.servers.by_marker.get(seen.ask.marker, [])
        late = [start for start in starts if start.at > seen.first_content]
        if late or (seen.tokens and seen.tokens[0][1] != len(starts) - 1):
            yield f"{seen} had content already when it was started again: {starts}"


def attempts_are_bounded(evidence: Evidence) -> Iterator[str]:
    """No more attempts than configured."""
    most = evidence.plan.config.retries.attempts
    for record in evidence.records:
        if record.attempts > most:
            yield f"{record} took more than {most} attempts"


def keys_share_nothing(evidence: Evidence) -> Iterator[str]:
    """One generation is never seen by two clients' keys."""
    owners: dict[tuple[str, int], set[str]] = defaultdict(set)
    for seen in evidence.clients.seen:
        for marker, start, _ in seen.tokens[:1]:
            owners[marker, start].add(seen.owner)
    for generation, found in owners.items():
        if len(found) > 1:
            yield f"the generation {generation} went to {sorted(found)}"


def requests_have_one_record(evidence: Evidence) -> Iterator[str]:
    """Exactly one record for each request that was answered or that reached a server, which tells how it ended."""
    counted = Counter(record.request_id for record in evidence.records)
    records = {record.request_id: record for record in evidence.records}
    for request_id, count in counted.items():
        if count > 1:
            yield f"{request_id} has {count} records"
    for seen in evidence.clients.seen:
        told = seen.fields.get(b"x-request-id", b"").decode()
        started = not seen.ask.shared and seen.ask.marker in evidence.servers.by_marker
        if seen.connection in evidence.clients.browsed and _struck(evidence, seen.connection):
            continue  # a request that was cut in two is refused by Hypercorn itself
        if seen.status and told not in records:
            yield f"{seen} has no record under {told!r}"
        elif started and seen.ask.request_id not in records:
            yield f"{seen} reached a server and has no record"
        elif seen.done and records[told].outcome != "completed":
            yield f"{seen} is done, and {records[told]}"
        elif seen.done and not seen.ask.shared and (start := _generation(evidence, seen)) is not None:
            usage = records[told].usage
            if usage is None or usage.completion_tokens != start.planned:
                yield f"{seen} took {start.planned} tokens, and {records[told]}"


def deadlines_hold(evidence: Evidence) -> Iterator[str]:
    """No request outlives its deadline."""
    longest = evidence.plan.config.limits.request + GRACE
    for record in evidence.records:
        if record.duration > longest:
            yield f"{record} took longer than {longest:g} s"


def departures_end_work(evidence: Evidence) -> Iterator[str]:
    """Soon after a client has left, no server works for it."""
    for seen in evidence.clients.seen:
        if seen.ending != "left" or seen.ask.shared or seen.ended is None or _struck(evidence, seen.connection):
            continue
        for start in evidence.servers.by_marker.get(seen.ask.marker, ()):
            if start.at > seen.ended + DEPARTURE:
                yield f"{seen} left at {seen.ended:.3f}, and was started at {start.at:.3f}: {start}"
            elif not (start.done or _struck(evidence, start.connection)) and (
                start.ended is None or start.ended > seen.ended + DEPARTURE
            ):
                yield f"{seen} left at {seen.ended:.3f}, and {start} went on until {start.ended}"


def limits_are_never_overspent(evidence: Evidence) -> Iterator[str]:
    """At no moment have servers seen more requests or tokens of a key than it was given since it was full. A request that
    ended before its client had anything is free.
    """
    config = evidence.plan.config
    owners = {
        seen.ask.marker: seen.owner
        for seen in evidence.clients.seen
        if not seen.ask.shared and seen.owner != PROBER_HOST  # a loopback address has no limit
    }
    failed = {record.request_id for record in evidence.records if record.outcome != "completed"}
    free = {seen.ask.marker for seen in evidence.clients.seen if not seen.tokens and seen.ask.request_id in failed}
    requests: dict[str, int | None] = defaultdict(lambda: config.rate.anonymous_requests_per_minute or None)
    requests |= {str(key.key): key.requests_per_minute for key in config.keys}
    tokens = {str(key.key): key.tokens_per_minute for key in config.keys}
    asked: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for start in evidence.servers.starts:
        owner = owners.get(start.marker)
        if owner is None:
            continue
        limit, budget = requests[owner], tokens.get(owner)
        asked[owner] += start.number == 0
        if limit is not None and asked[owner] > limit * (1 + start.at / MINUTE) + EPSILON:
            yield f"{owner} may ask {limit} times a minute, and had {asked[owner]} by {start.at:.3f}"
        last = evidence.servers.by_marker[start.marker][-1] is start
        if budget is not None and last and start.marker not in free and start.ended is not None:
            spent[owner] += start.made + PROMPT_TOKENS
            if spent[owner] > budget * (1 + start.ended / MINUTE) + EPSILON:
                yield f"{owner} may spend {budget} tokens a minute, and had {spent[owner]} by {start.ended:.3f}"


def forbidden_addresses_are_left_alone(evidence: Evidence) -> Iterator[str]:
    """Whatever names resolve to, nothing is ever sent to an address that egress refuses."""
    for at, what, *rest in evidence.network.trace:
        if what == "connect" and str(rest[1]).startswith(FORBIDDEN_HOST):
            yield f"at {at}, {rest[1]} was connected to"


INVARIANTS: tuple[Invariant, ...] = (
    nothing_was_noticed,
    tokens_are_the_requests_own,
    replies_do_not_just_stop,
    nonsense_is_refused,
    content_ends_retries,
    attempts_are_bounded,
    keys_share_nothing,
    requests_have_one_record,
    deadlines_hold,
    departures_end_work,
    limits_are_never_overspent,
    forbidden_addresses_are_left_alone,
)


def _generation(evidence: Evidence, seen: Seen) -> Start | None:
    """What the tokens of a reply are taken from; without tokens, the only start there was."""
    starts = evidence.servers.by_marker.get(seen.ask.marker, [])
    number = seen.tokens[0][1] if seen.tokens else len(starts) - 1
    return starts[number] if 0 <= number < len(starts) else None


def _struck(evidence: Evidence, connection: int) -> bool:
    return connection in evidence.network.struck


def _undisturbed(evidence: Evidence, seen: Seen) -> bool:
    return seen.attentive and not _struck(evidence, seen.connection)


def _ended_inside_write(evidence: Evidence, seen: Seen) -> bool:
    """Whether its time was up, perhaps while a part of it was still to be written: then only cutting it is left."""
    ended = {record.request_id for record in evidence.records if record.error in OUT_OF_TIME}
    return seen.connection in evidence.network.narrow and seen.ask.request_id in ended


def _is_first(evidence: Evidence, seen: Seen) -> bool:
    """Whether it was asked first on its connection: a later one may meet the end of keep-alive."""
    first = next(other for other in evidence.clients.seen if other.connection == seen.connection)
    if seen.connection in evidence.clients.browsed:
        return False
    return first is seen and seen.asked is not None and seen.asked < evidence.stopped_at


def _has_room(evidence: Evidence) -> bool:
    return evidence.plan.config.server.max_connections > evidence.plan.clients
