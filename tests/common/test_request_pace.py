"""API_REQUESTS_PER_MINUTE: the promise holds in any minute, and most of the number is used."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from common.api.request_pace import CATCH_UP_S, ON_THE_WAY_S, PACED, RequestPace, divided
from common.wire.timing import TICK_S

PER_MINUTE = st.integers(1, 3000)


def sent(pace: RequestPace, asked_at: list[float]) -> list[float]:
    """When requests left, if all that are allowed leave at each of these times."""
    times = []
    for now in asked_at:
        while pace.allows(now):
            pace.began(now)
            times.append(now)
    return times


def most_in_a_minute(times: list[float]) -> int:
    times = sorted(times)
    return max((bisect_left(times, at + 60.0) - index for index, at in enumerate(times)), default=0)


@given(PER_MINUTE, st.lists(st.floats(0, 3), min_size=1, max_size=200), st.randoms(use_true_random=False))
def test_no_minute_has_more_than_the_number_whenever_the_loop_looks_and_however_long_requests_are_on_their_way(
    per_minute: int, pauses: list[float], rng: object
) -> None:
    asked_at, now = [], 1000.0
    for pause in pauses:
        now += pause
        asked_at.append(now)
    left = sent(RequestPace(per_minute), asked_at)
    arrived = [at + rng.uniform(0, 0.99 * ON_THE_WAY_S) for at in left]  # type: ignore[attr-defined]
    assert most_in_a_minute(arrived) <= per_minute


@given(st.integers(10, 6000), st.floats(0.01, 2.4 * TICK_S))
def test_most_of_the_number_is_used_whenever_the_loop_looks(per_minute: int, step_s: float) -> None:
    left = sent(RequestPace(per_minute), [step * step_s for step in range(int(180 / step_s))])
    assert len(left) >= 0.97 * 3 * per_minute - 1


def test_at_once_only_what_a_quarter_of_a_second_brings() -> None:
    pace = RequestPace(6000)
    assert len(sent(pace, [0.0])) == 1, "a start must not add more to what the process before has sent"
    assert len(sent(pace, [10.0])) == 1 + int(CATCH_UP_S * 6000 / 61)
    assert len(sent(RequestPace(60), [0.0, 0.1])) == 1


def test_the_number_zero_is_no_limit() -> None:
    pace = RequestPace(0)
    for _ in range(10_000):
        assert pace.allows(1.0)
        pace.began(1.0)
    assert not pace.is_limiting(1.0)
    assert pace.facts(1.0) == {}


def test_it_is_told_while_requests_wait_and_not_much_longer() -> None:
    pace = RequestPace(60)
    assert len(sent(pace, [0.0])) == 1
    assert pace.facts(0.5) == {"paced": True, "notices": [PACED]}
    assert pace.facts(5.0) == {}


@given(st.integers(2, 100_000), st.booleans())
def test_the_parts_of_both_processes_are_the_number_and_each_may_send(number: int, claims: bool) -> None:
    parts = divided(number, claim_tasks=claims)
    assert sum(parts) == number
    assert min(parts) >= 1


def test_with_claims_each_process_has_half_and_without_the_publisher_has_nearly_all() -> None:
    assert divided(1000, claim_tasks=True) == (500, 500)
    assert divided(1000, claim_tasks=False) == (50, 950)
    assert divided(0, claim_tasks=False) == (0, 0)
