"""Whom each policy chooses: its distribution, what moves when a backend leaves, and that nobody is overrun."""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quiver.proxy.routing.load import Load
from quiver.proxy.routing.policies import (
    BOUND,
    POLICIES,
    Draw,
    Policy,
    least_in_flight,
    peak_ewma,
    rendezvous,
    round_robin,
    weighted,
)
from quiver.schemas import config


class Server:
    def __init__(self, id: str, weight: float = 1.0, in_flight: int = 0, first_token: float | None = None) -> None:
        self.id, self.load = id, Load(weight)
        for _ in range(in_flight):
            self.load.taken()
        if first_token is not None:
            self.load.first_token.observe(first_token, 0.0)


def servers(*in_flight: int) -> list[Server]:
    return [Server(f"server-{number}", in_flight=busy) for number, busy in enumerate(in_flight)]


def draw(turn: int = 0, affinity: int = 0, now: float = 0.0, random: Random | None = None) -> Draw:
    return Draw(turn, now, random or Random(0), affinity)


def sent(policy: Policy, to: Sequence[Server], requests: int, affinity: int = 0) -> Counter[str]:
    """Who got so many requests, none of which comes back."""
    random = Random(1)
    counts: Counter[str] = Counter()
    for turn in range(requests):
        chosen = to[policy(to, draw(turn, affinity, random=random))]
        chosen.load.taken()
        counts[chosen.id] += 1
    return counts


def owners(of: Sequence[Server], affinities: range) -> dict[int, str]:
    return {affinity: of[rendezvous(of, draw(affinity=affinity))].id for affinity in affinities}


def test_every_policy_exists() -> None:
    assert tuple(POLICIES) == get_args(config.Policy)


@given(
    name=st.sampled_from(get_args(config.Policy)),
    loads=st.lists(st.tuples(st.floats(0.001, 1000), st.integers(0, 50)), min_size=1, max_size=12),
    turn=st.integers(0, 2**40),
    affinity=st.integers(0, 2**64 - 1),
    seed=st.integers(0, 1000),
)
def test_choice_is_a_candidate(
    name: config.Policy, loads: list[tuple[float, int]], turn: int, affinity: int, seed: int
) -> None:
    candidates = [Server(f"server-{number}", *load) for number, load in enumerate(loads)]
    first, second = (POLICIES[name](candidates, draw(turn, affinity, 5.0, Random(seed))) for _ in range(2))
    assert first == second
    assert 0 <= first < len(candidates)


def test_round_robin_in_turn() -> None:
    assert [round_robin(servers(0, 9, 0), draw(turn)) for turn in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("weights", "turns"),
    [
        ((1,), [0, 0, 0]),
        ((1, 1, 1), [0, 1, 2, 0, 1, 2]),
        ((3, 1), [0, 0, 1, 0, 0, 0, 1, 0]),
        ((5, 1, 1), [0, 0, 0, 1, 2, 0, 0]),
        ((0.5, 0.25), [0, 1, 0, 0, 1, 0]),
    ],
)
def test_weighted_is_smooth(weights: Sequence[float], turns: list[int]) -> None:
    candidates = [Server(str(weight), weight) for weight in weights]
    assert [weighted(candidates, draw(turn)) for turn in range(len(turns))] == turns


@given(weights=st.lists(st.integers(1, 40), min_size=1, max_size=8), start=st.integers(0, 100_000))
def test_weighted_window_is_exact(weights: list[int], start: int) -> None:
    candidates = [Server(str(number), weight) for number, weight in enumerate(weights)]
    counts = Counter(weighted(candidates, draw(turn)) for turn in range(start, start + sum(weights)))
    assert [counts[index] for index in range(len(weights))] == weights


def test_weighted_by_fractions() -> None:
    candidates = [Server("small", 0.1), Server("large", 0.7), Server("middle", 0.2)]
    assert sent(weighted, candidates, 1000) == {"small": 100, "large": 700, "middle": 200}


@pytest.mark.parametrize(
    ("in_flight", "turn", "chosen"),
    [
        ((2, 1, 3), 0, 1),
        ((2, 1, 3), 2, 1),
        ((1, 1, 1), 0, 0),
        ((1, 1, 1), 1, 1),
        ((1, 1, 1), 5, 2),
        ((0, 4, 0), 1, 2),
        ((0, 4, 0), 3, 0),
        ((7,), 3, 0),
    ],
)
def test_least_in_flight(in_flight: Sequence[int], turn: int, chosen: int) -> None:
    assert least_in_flight(servers(*in_flight), draw(turn)) == chosen


def test_least_in_flight_levels_out() -> None:
    assert sent(least_in_flight, servers(6, 0, 3), 9) == {"server-1": 6, "server-2": 3}


# Of 60 requests between two polls, far more would go to one server if only the reports counted.
@pytest.mark.parametrize(("policy", "most"), [(least_in_flight, 23), (peak_ewma, 25), (rendezvous, 39)])
def test_stale_reports_no_herd(policy: Policy, most: int) -> None:
    candidates = servers(0, 0, 0)
    for server, reported in zip(candidates, (40.0, 44.0, 44.0), strict=True):
        server.load.report(reported, now=0.0)
    assert max(sent(policy, candidates, 60, affinity=7).values()) <= most


def test_reports_name_the_idle() -> None:
    candidates = servers(1, 1)
    candidates[0].load.report(40.0, now=0.0)
    candidates[1].load.report(1.0, now=0.0)
    assert sent(least_in_flight, candidates, 39) == {"server-1": 39}


# Two servers, so that both are always drawn: time to the first token and requests in flight of each.
@pytest.mark.parametrize(
    ("one", "other", "chosen"),
    [
        ((0.2, 0), (1.0, 0), 0),
        ((1.0, 0), (0.2, 0), 1),
        ((0.2, 3), (1.0, 0), 0),
        ((0.2, 5), (1.0, 0), 1),
        ((0.5, 1), (0.4, 2), 0),
        ((None, 0), (2.0, 0), 0),
        ((None, 0), (0.5, 0), 1),
        # So fast that only the load counts.
        ((0.001, 1), (0.04, 0), 1),
    ],
)
def test_peak_ewma_waits_least(one: tuple[float | None, int], other: tuple[float, int], chosen: int) -> None:
    candidates = [Server(str(number), 1.0, busy, seconds) for number, (seconds, busy) in enumerate((one, other))]
    assert {peak_ewma(candidates, draw(random=Random(seed))) for seed in range(20)} == {chosen}


def test_peak_ewma_retries_slow() -> None:
    candidates = [Server("slow", first_token=8.0), Server("fast")]
    chosen = []
    for now in range(60):
        candidates[1].load.first_token.observe(0.3, float(now))
        chosen.append(peak_ewma(candidates, draw(now=float(now))))
    # 8 s fade to 0.3 s in 10 * ln(8 / 0.3) = 32.8 s.
    assert chosen == [1] * 33 + [0] * 27


def test_peak_ewma_idle_no_herd() -> None:
    candidates = [Server("idle", first_token=0.3), Server("busy")]
    candidates[1].load.first_token.observe(0.1, 3600.0)
    random = Random(3)
    for turn in range(30):
        candidates[peak_ewma(candidates, draw(turn, now=3600.0, random=random))].load.taken()
    assert [server.load.in_flight for server in candidates] == [20, 10]


def test_peak_ewma_draws_pairs() -> None:
    candidates = servers(0, 0, 0, 0)
    random = Random(2)
    counts = Counter(peak_ewma(candidates, draw(random=random)) for _ in range(4000))
    assert all(900 < counts[index] < 1100 for index in range(4))
    candidates[2].load.taken()
    assert 2 not in {peak_ewma(candidates, draw(random=random)) for _ in range(200)}


def test_affinity_spreads_evenly() -> None:
    counts = Counter(owners(servers(0, 0, 0), range(1, 3001)).values())
    assert all(900 < count < 1100 for count in counts.values())


def test_affinity_ignores_order() -> None:
    candidates = servers(0, 0, 0, 0)
    assert owners(candidates, range(1, 200)) == owners(candidates[::-1], range(1, 200))


def test_leaving_moves_only_its_own() -> None:
    candidates = servers(0, 0, 0, 0)
    before, after = owners(candidates, range(1, 1001)), owners(candidates[:3], range(1, 1001))
    moved = [affinity for affinity in before if before[affinity] != after[affinity]]
    assert moved == [affinity for affinity in before if before[affinity] == "server-3"]
    assert len(set(after[affinity] for affinity in moved)) == 3


def test_without_affinity_in_turn() -> None:
    assert [rendezvous(servers(5, 0, 0), draw(turn)) for turn in range(4)] == [0, 1, 2, 0]


def test_hot_prefix_spills_over() -> None:
    assert sorted(sent(rendezvous, servers(0, 0, 0), 60, affinity=11).values()) == [10, 25, 25]


def test_affinity_returns_after_spilling() -> None:
    candidates = servers(0, 0, 0)
    home = rendezvous(candidates, draw(affinity=5))
    candidates[home].load.report(9.0, now=0.0)
    assert rendezvous(candidates, draw(affinity=5)) != home
    candidates[home].load.report(0.0, now=1.0)
    assert rendezvous(candidates, draw(affinity=5)) == home


@given(in_flight=st.lists(st.integers(0, 100), min_size=1, max_size=10), affinity=st.integers(1, 2**64 - 1))
def test_affinity_load_is_bounded(in_flight: list[int], affinity: int) -> None:
    candidates = servers(*in_flight)
    chosen = rendezvous(candidates, draw(affinity=affinity))
    assert in_flight[chosen] < BOUND * (sum(in_flight) + 1) / len(in_flight)
