"""The circuit's table, walked in every way: who is taken out, for how long, who may come back, and what never counts."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quiver.proxy.registry import OUT_OF_SERVICE
from quiver.proxy.remote.circuit import (
    BLAME_BY_CODE,
    SHOWN,
    TIERS,
    TRANSITIONS,
    Blame,
    Circuit,
    Source,
    State,
    classify,
)
from quiver.schemas import errors
from quiver.schemas.config import Health
from quiver.schemas.errors import ApiError, ErrorKind

CONFIG = Health(interval=60, failures=3, ejection=5, max_ejection=300)
STATES: tuple[State, ...] = ("unknown", "healthy", "suspect", "ejected", "half_open", "disabled")


def circuit(config: Health = CONFIG, seed: int = 1) -> Circuit:
    return Circuit(config, Random(seed))


def in_state(state: State) -> Circuit:
    """A circuit brought to `state` at time 0."""
    made = circuit()
    match state:
        case "healthy":
            made.passed(0.0)
        case "suspect":
            made.failed("down", 0.0)
        case "ejected" | "half_open":
            eject(made, 0.0)
            if state == "half_open":
                assert made.begin_trial(made.until)
        case "disabled":
            made.refused_credential("bad key", 0.0)
        case "unknown":
            pass
    assert made.state == state
    return made


def eject(made: Circuit, now: float) -> float:
    """Fail until ejected, and return the length of the ejection."""
    for _ in range(CONFIG.failures):
        made.failed("down", now)
    assert made.state == "ejected"
    return made.until - now


def test_tables_name_every_state() -> None:
    reached = {state for row in TRANSITIONS.values() for state in row.values()} | {"unknown"}
    assert set(TRANSITIONS) == set(TIERS) == set(SHOWN) == set(STATES) == reached


# After, in this order: a success, one failure, a refused credential, at a time when every ejection is over.
AFTER: list[tuple[State, State, State, State]] = [
    ("unknown", "healthy", "suspect", "disabled"),
    ("healthy", "healthy", "suspect", "disabled"),
    ("suspect", "healthy", "suspect", "disabled"),
    ("ejected", "healthy", "ejected", "disabled"),
    ("half_open", "healthy", "ejected", "disabled"),
    ("disabled", "healthy", "disabled", "disabled"),
]


@pytest.mark.parametrize(("state", "passed", "failed", "refused"), AFTER)
@pytest.mark.parametrize("source", ["check", "traffic"])
def test_results_move_states(state: State, passed: State, failed: State, refused: State, source: Source) -> None:
    first, second, third = in_state(state), in_state(state), in_state(state)
    first.passed(400.0, source=source)
    second.failed("down", 400.0, source=source)
    third.refused_credential("bad key", 400.0, source=source)
    assert [first.state, second.state, third.state] == [passed, failed, refused]
    assert (first.reason, first.until, first.failures) == (None, 0.0, 0)
    assert (second.reason, third.reason) == ("down", "bad key")


@pytest.mark.parametrize(
    ("state", "tier", "may_try", "later_tier", "health"),
    [
        ("unknown", 1, True, 1, "unknown"),
        ("healthy", 0, True, 0, "healthy"),
        ("suspect", 2, True, 2, "unhealthy"),
        ("ejected", 3, False, 2, "unhealthy"),
        ("half_open", 3, False, 3, "unhealthy"),
        ("disabled", 3, False, 3, "unhealthy"),
    ],
)
def test_tier_follows_state(state: State, tier: int, may_try: bool, later_tier: int, health: str) -> None:
    made = in_state(state)
    assert (made.tier(0.0), made.tier(0.0) < OUT_OF_SERVICE, made.tier(1000.0), made.health) == (
        tier,
        may_try,
        later_tier,
        health,
    )


@pytest.mark.parametrize("failures", [1, 2, 3, 100])
def test_failures_in_row_eject(failures: int) -> None:
    made = circuit(Health(failures=failures))
    for number in range(failures - 1):
        made.failed("down", float(number))
        assert made.state == "suspect"
    made.failed("down", float(failures))
    assert (made.state, made.failures) == ("ejected", failures)


def test_success_resets_count() -> None:
    made = circuit()
    for now in range(50):
        made.failed("down", now)
        made.failed("down", now)
        made.passed(now)
    assert (made.state, made.failures) == ("healthy", 0)


def test_one_trial_after_ejection() -> None:
    made = in_state("ejected")
    over = made.until
    assert not made.begin_trial(over - 0.001)
    assert made.tier(over) < OUT_OF_SERVICE
    assert made.begin_trial(over)
    assert made.tier(over + 1) == OUT_OF_SERVICE
    assert not made.begin_trial(over + 1)


@pytest.mark.parametrize("state", ["unknown", "healthy", "suspect", "disabled"])
def test_only_ejected_have_trials(state: State) -> None:
    assert not in_state(state).begin_trial(1000.0)


def test_dropped_trial_frees_place() -> None:
    made = in_state("ejected")
    over = made.until
    assert made.begin_trial(over)
    made.end_trial(over)
    assert (made.state, made.until, made.tier(over) < OUT_OF_SERVICE) == ("ejected", over, True)


def test_trial_ends_only_itself() -> None:
    made = in_state("ejected")
    first = made.until
    made.begin_trial(first)
    made.failed("down", first + 1, began=first)
    second = made.until
    made.begin_trial(second)
    made.end_trial(first)
    assert made.tier(second) == OUT_OF_SERVICE, "the second trial is still under way"
    made.passed(second + 1, began=second)
    made.end_trial(second)
    assert made.state == "healthy"


def test_ejection_doubles_with_jitter() -> None:
    made, now, lengths = circuit(), 0.0, []
    for _ in range(10):
        lengths.append(eject(made, now) if made.state == "unknown" else made.until - now)
        now = made.until
        made.begin_trial(now)
        made.failed("down", now)
    for length, expected in zip(lengths, [5, 10, 20, 40, 80, 160, 300, 300, 300, 300], strict=True):
        assert expected * 0.8 <= length <= min(expected * 1.2, 300)
    assert len({length / expected for length, expected in zip(lengths, [5, 10, 20, 40], strict=False)}) == 4


def test_longest_ejections_spread() -> None:
    made, lengths = in_state("ejected"), []
    for _ in range(60):
        now = made.until
        made.begin_trial(now)
        made.failed("down", now)
        lengths.append(made.until - now)
    assert max(lengths) == pytest.approx(300)
    assert min(lengths[10:]) < 260, "dead servers are not checked in step"


def test_same_seed_same_ejections() -> None:
    assert eject(circuit(seed=7), 0.0) == eject(circuit(seed=7), 0.0) != eject(circuit(seed=8), 0.0)


@pytest.mark.parametrize(("healthy", "shortest", "longest"), [(59.9, 8.0, 12.0), (60.0, 4.0, 6.0)])
def test_healthy_interval_forgives(healthy: float, shortest: float, longest: float) -> None:
    made = in_state("ejected")
    made.passed(100.0)
    assert shortest <= eject(made, 100.0 + healthy) <= longest


def test_failing_outside_changes_nothing() -> None:
    made = in_state("ejected")
    until = made.until
    for _ in range(20):
        made.failed("still down", until - 1)
    assert (made.state, made.until, made.reason) == ("ejected", until, "still down")


def test_old_news_is_ignored() -> None:
    made = circuit()
    eject(made, 10.0)
    until, results = made.until, len(made.history)
    made.passed(11.0, began=9.0)
    made.failed("cut", 11.0, began=9.0)
    made.refused_credential("bad key", 11.0, began=9.0)
    assert (made.state, made.until, made.reason, len(made.history)) == ("ejected", until, "down", results)
    made.passed(12.0, began=11.0)
    made.failed("timeout", 310.0, began=9.0)
    assert made.state == "healthy", "a request from before the ejection fails after the server is back"


def test_refused_credential_backs_off() -> None:
    made, now, lengths = circuit(), 0.0, []
    for _ in range(3):
        made.refused_credential("bad key", now, source="check")
        lengths.append(made.until - now)
        now = made.until
    assert [round(length / expected) for length, expected in zip(lengths, [5, 10, 20], strict=True)] == [1, 1, 1]


def test_pause_is_per_model() -> None:
    made = in_state("healthy")
    made.pause("a", 30.0, 100.0)
    assert (made.paused_until("a"), made.paused_until("b"), made.state, made.failures) == (130.0, 0.0, "healthy", 0)
    made.pause("a", 1.0, 101.0)
    assert made.paused_until("a") == 130.0, "a later answer does not shorten it"
    made.pause("b", 1e9, 200.0)
    assert made.paused_until("b") == 500.0, "no longer than the longest ejection"
    assert made.paused_until("a") == 0.0, "what is over is forgotten"


def test_history_keeps_last_hundred() -> None:
    made = circuit()
    for number in range(150):
        made.passed(float(number), began=number - 0.25, source="check")
    made.failed("cut", 150.0, began=140.0)
    assert len(made.history) == 100
    assert [
        (result.at, result.ok, result.seconds, result.reason, result.source) for result in list(made.history)[-2:]
    ] == [
        (149.0, True, 0.25, None, "check"),
        (150.0, False, 10.0, "cut", "traffic"),
    ]


def test_traffic_does_not_flood_history() -> None:
    made = in_state("healthy")
    made.passed(1.0, source="check")
    for now in range(1000):
        made.passed(2.0 + now)
    assert [result.source for result in made.history] == ["traffic", "check"]


def test_changes_are_told_once() -> None:
    made = circuit()
    told: list[tuple[State, bool]] = []
    made.on_change = lambda: told.append((made.state, made.until > 0))
    for now in (0.0, 1.0):
        made.passed(now, source="check")
    for now in (2.0, 3.0, 4.0, 4.5):
        made.failed("down", now)
    made.begin_trial(made.until)
    made.passed(20.0)
    assert told == [("healthy", False), ("suspect", False), ("ejected", True), ("half_open", True), ("healthy", False)]


def test_statistics_sum_up_checks() -> None:
    made = circuit()
    fresh = made.statistics(5.0)
    assert (fresh.state, fresh.checked_at, fresh.success_rate, fresh.mean_seconds, fresh.uptime) == (
        "unknown",
        None,
        None,
        None,
        None,
    )
    made.passed(10.0, began=9.0, source="check")
    made.failed("down", 40.0, began=37.0, source="check")
    made.failed("cut", 45.0)
    sums = made.statistics(50.0)
    assert (sums.state, sums.health, sums.reason, sums.since) == ("suspect", "unhealthy", "cut", 40.0)
    assert (sums.failures, sums.checked_at, sums.success_rate, sums.mean_seconds) == (2, 40.0, 0.5, 2.0)
    assert sums.uptime == 30.0 / 40.0
    made.passed(50.0)
    assert made.statistics(70.0).uptime == 50.0 / 60.0


def test_repr_is_one_line() -> None:
    assert repr(in_state("ejected")) == "<Circuit ejected, 3 failures: down>"
    assert repr(in_state("healthy")) == "<Circuit healthy, 0 failures>"


BLAMES: list[tuple[ErrorKind, int | None, Blame]] = [
    (errors.UPSTREAM_UNREACHABLE, None, "failure"),
    (errors.UPSTREAM_FORBIDDEN, None, "failure"),
    (errors.UPSTREAM_TIMEOUT, None, "failure"),
    (errors.UPSTREAM_TRUNCATED, None, "failure"),
    (errors.UPSTREAM_MALFORMED, None, "failure"),
    (errors.UPSTREAM_ERROR, None, "failure"),
    (errors.UPSTREAM_UNAUTHORIZED, None, "credential"),
    (errors.UPSTREAM_BUSY, None, "pause"),
    (errors.DEADLINE_EXCEEDED, None, "none"),
    (errors.INTERNAL_ERROR, None, "none"),
    (errors.SHUTTING_DOWN, None, "none"),
    (errors.INVALID_API_KEY, None, "none"),
    (errors.RATE_LIMITED, None, "none"),
    *((errors.UPSTREAM_ERROR, status, "failure") for status in (500, 501, 502, 503, 504, 507, 520, 599)),
    *((errors.UPSTREAM_REFUSED, status, "none") for status in (400, 402, 404, 405, 408, 409, 413, 415, 422, 451)),
    (errors.UPSTREAM_UNAUTHORIZED, 401, "credential"),
    (errors.UPSTREAM_REFUSED, 403, "credential"),
    (errors.UPSTREAM_BUSY, 429, "pause"),
]


@pytest.mark.parametrize(("kind", "status", "blame"), BLAMES)
def test_blame_is_kept_apart(kind: ErrorKind, status: int | None, blame: Blame) -> None:
    assert classify(ApiError(kind, "why"), status) == blame


def test_every_upstream_fault_blamed() -> None:
    assert set(BLAME_BY_CODE) == {kind.code for kind in errors.CATALOGUE if kind.fault == "upstream"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["passed", "failed", "refused", "begin", "end"]),
        st.floats(0, 40),
        st.floats(0, 40),
        st.sampled_from(["check", "traffic"]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 2**32), st.integers(1, 4))
def test_no_path_is_illegal(steps: list[tuple[str, float, float, Source]], seed: int, failures: int) -> None:
    made = circuit(Health(failures=failures), seed)
    now = 0.0
    for step, pause, seconds, source in steps:
        now += pause
        began, before, until = now - seconds, made.state, made.until
        match step:
            case "passed":
                made.passed(now, began=began, source=source)
            case "failed":
                made.failed("down", now, began=began, source=source)
            case "refused":
                made.refused_credential("bad key", now, began=began, source=source)
            case "begin":
                made.begin_trial(now)
            case "end":
                made.end_trial(made.since or 0.0)
        assert (made.state == "healthy") <= (made.failures == 0 and made.reason is None and made.until == 0.0)
        assert (made.state in ("ejected", "half_open", "disabled")) == (made.until > 0.0)
        assert (made.state in ("ejected", "half_open")) <= (made.failures >= failures)
        assert made.until <= now + 300
        assert before == "ejected" or made.state != "half_open" or before == "half_open"
        assert made.until == until or made.until > now or made.state == "healthy"
