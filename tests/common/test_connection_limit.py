"""The connection limit against simulated APIs. Time is simulated: no test waits."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.api.connection_limit import QUICK_S, SHORTEST_ROUND, ConnectionLimit

MOST = 16
Serve = Callable[[float, int], float]
"""When a PATCH that began at a time, as one of this number under way, ends."""


class SimulatedApi:
    """Always has the next PATCH to send, and begins it as soon as the limit allows."""

    def __init__(self, most: int = MOST) -> None:
        self.limit = ConnectionLimit(most)
        self.now = 0.0
        self.served = 0
        self.limits: list[int] = []
        """The limit after each response."""
        self._ends: list[tuple[float, float]] = []

    def run(self, count: int, serve: Serve) -> SimulatedApi:
        """Go on until `count` PATCHes more have ended."""
        for _ in range(count):
            while len(self._ends) < self.limit.now:
                heapq.heappush(self._ends, (serve(self.now, len(self._ends) + 1), self.now))
            self.now, began = heapq.heappop(self._ends)
            self.served += 1
            self.limit.on_ended(1, len(self._ends) + 1, [self.now - began])
            self.limits.append(self.limit.now)
        return self


def constant(latency_s: float) -> Serve:
    return lambda now, _: now + latency_s


class Workers:
    """An API that works on this number of PATCHes at a time, while the others wait."""

    def __init__(self, count: int, work_s: float) -> None:
        self._free_at = [0.0] * count
        self._work_s = work_s

    def __call__(self, now: float, _: int) -> float:
        at = max(now, heapq.heappop(self._free_at)) + self._work_s
        heapq.heappush(self._free_at, at)
        return at


# ---- bounds ----

BATCHES = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.integers(0, 40),
        st.lists(st.floats(0, 1e4, allow_nan=False), max_size=40),
        st.integers(0, 40),
    ),
    max_size=60,
)


@given(st.integers(1, 256), BATCHES)
def test_the_limit_is_always_between_one_and_the_most(
    most: int, batches: list[tuple[int, int, list[float], int]]
) -> None:
    limit = ConnectionLimit(most)
    for count, more, served_s, throttled in batches:
        limit.on_ended(count, count + more, served_s, throttled)
        assert 1 <= limit.now <= most


# ---- slow, but steady ----


@given(st.floats(0.0001, 60), st.integers(1, 64))
def test_a_steady_latency_keeps_all_connections_whatever_it_is(latency_s: float, most: int) -> None:
    api = SimulatedApi(most).run(40 * most, constant(latency_s))
    assert api.limit.now == most
    api.limits.clear()
    assert set(api.run(20 * most, constant(latency_s)).limits) == {most}


def test_a_quick_api_has_all_connections_from_the_first_response_on() -> None:
    assert set(SimulatedApi().run(1000, constant(QUICK_S / 2)).limits) == {MOST}


@pytest.mark.parametrize("seed", range(5))
def test_latencies_that_vary_by_half_keep_the_connections(seed: int) -> None:
    rng = random.Random(seed)
    api = SimulatedApi().run(2000, lambda now, _: now + 0.2 * rng.uniform(0.5, 1.5))
    assert sum(api.limits[200:]) / len(api.limits[200:]) > 0.9 * MOST


@pytest.mark.parametrize("seed", range(5))
def test_some_tasks_that_take_very_long_do_not_cost_the_others_connections(seed: int) -> None:
    rng = random.Random(seed)
    api = SimulatedApi().run(2000, lambda now, _: now + (2.0 if rng.random() < 0.2 else 0.03))
    assert sum(api.limits[200:]) / len(api.limits[200:]) > 0.9 * MOST


def test_an_api_that_has_become_slower_for_another_reason_has_all_connections_again_soon() -> None:
    api = SimulatedApi().run(200, constant(0.005))
    began = api.now
    api.limits.clear()
    api.run(150, constant(0.3))
    assert min(api.limits) < MOST  # it was tried whether fewer are quicker
    assert api.limits[-1] == MOST
    assert api.now - began < 30 * 0.3


# ---- waiting for each other ----


@pytest.mark.parametrize("work_s", [0.03, 0.05, 0.5])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_an_api_whose_latency_grows_with_connections_gets_fewer_at_the_same_throughput(
    workers: int, work_s: float
) -> None:
    serve = Workers(workers, work_s)
    api = SimulatedApi().run(400, serve)
    api.limits.clear()
    began = api.now
    api.run(1000, serve)
    assert max(api.limits) < MOST * 3 / 4
    assert min(api.limits) >= workers
    assert 1000 / (api.now - began) > 0.95 * workers / work_s


def test_an_api_that_works_on_all_at_a_time_gets_all() -> None:
    assert SimulatedApi().run(1000, Workers(MOST, 0.1)).limit.now == MOST


def test_the_connections_come_back_when_the_api_gets_more_workers() -> None:
    api = SimulatedApi().run(500, Workers(1, 0.05))
    assert api.limit.now < MOST
    api.run(300, constant(0.05))
    assert api.limit.now == MOST


# ---- throttles ----


def test_refusals_with_429_halve_the_limit_once_for_all_that_were_under_way() -> None:
    limit = ConnectionLimit(MOST)
    for left in range(MOST, 0, -1):
        limit.on_ended(1, left, [], 1)
    assert limit.now == MOST // 2


def test_an_api_that_takes_two_at_a_time_gets_two_or_less() -> None:
    limit = ConnectionLimit(MOST)
    for _ in range(10):
        limit.on_ended(limit.now, limit.now, [0.05] * min(2, limit.now), max(0, limit.now - 2))
    assert limit.now <= 4


def test_one_task_that_is_told_to_wait_costs_no_connection() -> None:
    limit = ConnectionLimit(MOST)
    limit.on_ended(1, 1, [], 1)
    limit.on_ended(MOST, MOST, [0.01] * (MOST - 1), 1)
    assert limit.now == MOST


def test_the_limit_recovers_within_some_rounds_after_it_was_throttled_down_to_one() -> None:
    api = SimulatedApi()
    for _ in range(20):
        api.limit.on_ended(2, 2, [], 2)
    assert api.limit.now == 1
    api.run(200, constant(0.05))
    assert api.limit.now == MOST
    assert api.now < 2.0


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limit = ConnectionLimit(MOST)
    limit.on_ended(MOST, MOST, [], MOST)
    before = limit.now
    for _ in range(10 * SHORTEST_ROUND):
        limit.on_ended(1, 1, [0.01])
    assert limit.now == before
