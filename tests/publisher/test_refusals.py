"""How many refusals a result may have, and what a throttle of one task does to the others."""

from __future__ import annotations

from typing import Any

import pytest

from common.api.responses import ApiResponse
from common.api.status import Meaning
from common.failures.attribution import NEAR_S
from stages.publisher.actions import OutboxEntry
from stages.publisher.refusals import GIVE_UP, Refusals
from tests.publisher.publishing import entry

MAX_RETRIES = 3


class Judging:
    """Refusals of the task `bad`, with evidence against it: another task is accepted before each."""

    def __init__(self) -> None:
        self.refusals = Refusals(MAX_RETRIES, 5, 2.0)
        self.bad = entry()
        self.refuse(1.0)

    def refuse(self, now: float, **fields: Any) -> float:
        response = ApiResponse("bad", 500, "", 0.0, "one", **fields)
        return self.refusals.on_refused(response, self.bad, Meaning.UNAVAILABLE, now)[0]

    def serve(self, now: float, *, was_refused: bool = False) -> None:
        served: OutboxEntry = entry()
        served.unavailable_tries = int(was_refused)
        self.refusals.on_served("good", served, now)

    def tries_until_given_up(self, *, start: float) -> int:
        for number in range(1, 50):
            self.serve(start + number)
            if self.refuse(start + number + 0.5) == GIVE_UP:
                return number
        raise AssertionError("it was never given up")


def test_a_result_is_given_up_after_the_allowed_tries_with_evidence() -> None:
    assert Judging().tries_until_given_up(start=2.0) == MAX_RETRIES


def test_three_times_as_many_tries_are_allowed_while_refused_results_recover() -> None:
    judging = Judging()
    judging.serve(2.0, was_refused=True)
    assert judging.tries_until_given_up(start=2.0) == 3 * MAX_RETRIES


def test_recoveries_count_until_exactly_their_longest_age() -> None:
    for age_s, expected in ((NEAR_S, 3 * MAX_RETRIES), (NEAR_S + 0.1, MAX_RETRIES)):
        judging = Judging()
        judging.serve(2.0, was_refused=True)
        at = 2.0 + age_s
        allowed = 0
        while allowed < 50:
            judging.serve(at)
            allowed += 1
            if judging.refuse(at) == GIVE_UP:
                break
        assert allowed == expected


@pytest.mark.parametrize(
    ("served_ago_s", "waits"), [(0.0, False), (1.0, False), (NEAR_S, False), (NEAR_S + 0.1, True), (None, True)]
)
def test_a_throttle_of_one_task_is_the_apis_only_if_no_other_task_was_served_lately(
    served_ago_s: float | None, *, waits: bool
) -> None:
    refusals, now = Refusals(MAX_RETRIES, 5, 2.0), 1000.0
    if served_ago_s is not None:
        refusals.on_served("good", entry(), now - served_ago_s)
    response = ApiResponse("bad", 429, "", 30.0, "one")
    refusals.on_refused(response, entry(), Meaning.UNAVAILABLE, now)
    assert refusals.throttle.is_over(now + 0.1) is not waits


def test_a_result_is_given_up_when_fewer_tries_are_allowed_than_it_has_had() -> None:
    judging = Judging()
    judging.serve(2.0, was_refused=True)
    for number in range(MAX_RETRIES + 2):
        judging.serve(3.0 + number)
        assert judging.refuse(3.5 + number) != GIVE_UP
    late = 2.0 + NEAR_S + 1.0
    judging.serve(late)
    assert judging.refuse(late) == GIVE_UP


def test_a_refused_result_that_is_accepted_later_has_recovered() -> None:
    judging, other = Judging(), entry()
    judging.refusals.on_refused(ApiResponse("other", 500, "", 0.0, "one"), other, Meaning.UNAVAILABLE, 1.5)
    judging.refusals.on_served("other", other, 2.0)
    assert judging.tries_until_given_up(start=2.0) == 3 * MAX_RETRIES
