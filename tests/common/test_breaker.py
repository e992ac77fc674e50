"""The circuit breaker: its states, its cooldown and its probes."""

from __future__ import annotations

from common.failures.breaker import EARLY_INTERVAL_S, PROBE_HANGS_S, Breaker, State
from common.failures.errors import Throttled
from common.failures.retry import Backoff

THRESHOLD = 3
STEADY = Backoff(first=10.0, factor=1.0, longest=10.0)


def breaker() -> Breaker:
    return Breaker("api", THRESHOLD, STEADY)


def opened(at: float = 0.0) -> Breaker:
    tripped = breaker()
    tripped.failed(at, "down", at_once=True)
    return tripped


def test_a_breaker_allows_calls_until_the_threshold_of_failures_in_a_row() -> None:
    counted = breaker()
    for failures in range(THRESHOLD):
        assert counted.allows(0.0)
        assert counted.failures == failures
        counted.failed(0.0, "down")
    assert counted.state is State.OPEN
    assert counted.reason == "down"
    assert not counted.allows(0.0)


def test_a_success_resets_the_count_of_failures() -> None:
    counted = breaker()
    for _ in range(5):
        counted.failed(0.0, "down")
        counted.failed(0.0, "down")
        counted.succeeded()
    assert counted.state is State.CLOSED
    assert counted.failures == 0


def test_a_failure_that_no_retry_repairs_opens_the_breaker_at_once() -> None:
    assert opened().state is State.OPEN


def test_a_breaker_opens_for_its_back_off_half_of_which_is_random() -> None:
    assert 5.0 <= opened().cooldown.until <= 10.0


def test_a_breaker_opens_longer_each_time_the_probe_fails() -> None:
    growing = Breaker("api", 1, Backoff(first=1.0, factor=100.0, longest=10_000.0))
    growing.failed(0.0, "down")
    assert growing.cooldown.until <= 1.0
    assert growing.allows(1.0)
    growing.failed(1.0, "down")
    assert 51.0 <= growing.cooldown.until <= 101.0


def test_a_breaker_stays_open_as_long_as_the_other_side_asks() -> None:
    throttled = breaker()
    throttled.failed(0.0, "busy", error=Throttled("busy", 300.0), at_once=True)
    assert throttled.cooldown.until == 300.0
    assert not throttled.allows(299.9)
    assert throttled.allows(300.0)


def test_a_half_open_breaker_allows_one_probe_at_a_time() -> None:
    probing = opened()
    assert not probing.allows(4.9)
    assert probing.allows(10.0)
    assert probing.state is State.HALF_OPEN
    assert probing.allows(10.0)  # `allows` does not begin a call
    probing.began()
    assert not probing.allows(10.0)
    assert not probing.allows(1000.0)


def test_a_probe_that_succeeds_closes_the_breaker() -> None:
    probing = opened()
    probing.allows(10.0)
    probing.began()
    probing.succeeded()
    assert probing.state is State.CLOSED
    assert probing.reason == ""
    assert probing.allows(10.0)


def test_a_probe_that_fails_opens_the_breaker_again_until_the_next_probe() -> None:
    probing = opened()
    probing.allows(10.0)
    probing.began()
    probing.failed(10.0, "still down")
    assert probing.state is State.OPEN
    assert probing.reason == "still down"
    assert not probing.allows(14.9)
    assert probing.allows(20.0)


def test_closing_a_breaker_resets_its_back_off() -> None:
    growing = Breaker("api", 1, Backoff(first=1.0, factor=100.0, longest=10_000.0))
    for now in (0.0, 1000.0, 2000.0):
        growing.failed(now, "down")
        assert growing.cooldown.until <= now + 1.0
        growing.succeeded()


def test_the_failure_of_a_call_from_before_a_breaker_opened_does_not_prolong_its_cooldown() -> None:
    late = opened()
    before = late.cooldown.until
    late.failed(4.0, "late")
    assert late.cooldown.until == before
    assert late.reason == "down"


def test_a_call_that_begins_while_a_breaker_is_closed_is_not_a_probe() -> None:
    calling = breaker()
    calling.began()
    assert calling.allows(0.0)
    calling.failed(0.0, "down", at_once=True)
    assert calling.allows(10.0)


def test_an_undecided_probe_lets_another_one_go() -> None:
    half_open = opened()
    assert half_open.allows(11.0)
    half_open.began()
    assert not half_open.allows(11.0)
    half_open.undecided()
    assert half_open.state is State.HALF_OPEN
    assert half_open.allows(11.0)


def test_an_undecided_call_changes_neither_a_closed_nor_an_open_breaker() -> None:
    closed, still_open = breaker(), opened()
    closed.failed(0.0, "down")
    closed.undecided()
    still_open.undecided()
    assert (closed.state, closed.failures) == (State.CLOSED, 1)
    assert not still_open.allows(0.0)


def begin_all(probing: Breaker, now: float) -> int:
    """Make as many calls as are allowed; returns how many."""
    count = 0
    while probing.allows(now):
        probing.began()
        count += 1
    return count


def test_after_each_failed_probe_twice_as_many_are_allowed_at_once() -> None:
    probing = Breaker("api", 1, STEADY, most_probes=6)
    for failures, expected in enumerate((1, 2, 4, 6, 6)):
        probing.failed(10.0 * failures, "down")
        assert begin_all(probing, 10.0 * failures + 10.0) == expected


def test_a_probe_that_hangs_lets_another_one_go() -> None:
    probing = Breaker("api", 1, STEADY, most_probes=3)
    probing.failed(0.0, "down")
    assert begin_all(probing, 10.0) == 1
    assert begin_all(probing, 10.0 + PROBE_HANGS_S - 0.1) == 0
    assert begin_all(probing, 10.0 + PROBE_HANGS_S) == 1
    assert begin_all(probing, 10.0 + 2 * PROBE_HANGS_S) == 1
    assert begin_all(probing, 10.0 + 100 * PROBE_HANGS_S) == 0


def test_a_sign_of_life_allows_a_probe_before_the_cooldown_is_over() -> None:
    tripped = opened()
    tripped.half_open(1.0)
    assert tripped.state is State.HALF_OPEN
    assert tripped.reason == "down"  # only a probe closes it
    assert begin_all(tripped, 1.0) == 1


def test_signs_of_life_cause_a_probe_only_now_and_then() -> None:
    tripped = opened()
    tripped.half_open(1.0)
    tripped.failed(1.0, "still down")
    tripped.half_open(1.0 + EARLY_INTERVAL_S - 0.1)
    assert not tripped.allows(1.0 + EARLY_INTERVAL_S - 0.1)
    tripped.half_open(1.0 + EARLY_INTERVAL_S)
    assert tripped.allows(1.0 + EARLY_INTERVAL_S)


def test_a_sign_of_life_does_not_shorten_a_pause_that_the_other_side_asked_for() -> None:
    throttled = breaker()
    throttled.failed(0.0, "busy", error=Throttled("busy", 300.0), at_once=True)
    throttled.half_open(100.0)
    assert throttled.state is State.OPEN


def test_a_sign_of_life_changes_neither_a_closed_nor_a_half_open_breaker() -> None:
    closed, probing = breaker(), opened()
    closed.half_open(0.0)
    assert closed.state is State.CLOSED
    assert begin_all(probing, 10.0) == 1
    probing.half_open(10.0)
    assert not probing.allows(10.0)
