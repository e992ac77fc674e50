"""The decisions of a provider call, without a thread, a clock or a provider: `Simulated` replies to each action."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.retry import Backoff
from common.process.actions import Log
from common.wire.messages import Failure
from stages.embedder.calling.call_actions import (
    Action,
    CallRefused,
    CanaryServed,
    Event,
    InputRefused,
    LearnCap,
    ProviderPaused,
    ProviderUnavailable,
    RequestFailed,
    RetryAtOnce,
    SendCanary,
    SendRequest,
    Succeeded,
    WaitEnded,
    WaitUntil,
)
from stages.embedder.calling.evidence import Evidence
from stages.embedder.calling.pieces import RetryPolicy
from stages.embedder.calling.provider_call import MAX_WAIT_S, ProviderCall
from stages.embedder.calling.request_budget import RequestBudget

TEXTS = ["a", "b", "c", "d"]
BAD = Failure("refused", "the text is refused")
Reply = Callable[[list[str]], Event[str]]


class Simulated:
    """A provider call with a provider and a clock of its own: `replies` are its events, then every request succeeds."""

    def __init__(self, texts: Sequence[str] = TEXTS, *, budget: RequestBudget | None = None, **fields: object) -> None:
        self.texts = list(texts)
        self.budget = budget or RequestBudget()
        self.now = 100.0
        self.replies: list[Event[str] | Reply] = []
        self.always: Reply = self.succeed
        self.requests: list[str] = []
        self.waits: list[float] = []
        self.other: list[Action] = []
        self.is_stopping = False
        self.largest = 100
        self.policy = RetryPolicy(Backoff(first=1.0, factor=2.0), 2)
        self.rechecks: list[int] = []
        self.evidence = Evidence()
        self.canaries: list[Event[str]] = []
        """The events of the canaries, then every canary is served."""
        vars(self).update(fields)
        self.budget.cover(len(self.texts))
        self.call: ProviderCall[str] = ProviderCall(
            self.texts, self.budget, self.policy, self.split, self.evidence.of("model"), self.rechecks
        )

    def succeed(self, texts: list[str]) -> Event[str]:
        return Succeeded(self.now, [text.upper() for text in texts])

    def split(self, positions: Sequence[int]) -> list[Sequence[int]]:
        return [positions[at : at + self.largest] for at in range(0, len(positions), self.largest)]

    def run(self, *replies: Event[str] | Reply) -> list[str | Failure | None]:
        self.replies = list(replies)
        steps = self.call.run()
        try:
            action = next(steps)
            while True:
                event = self.reply(action)
                action = next(steps) if event is None else steps.send(event)
        except StopIteration:
            return self.call.outcomes

    def reply(self, action: Action) -> Event[str] | None:
        if isinstance(action, SendRequest):
            texts = [self.texts[position] for position in action.positions]
            self.requests.append("".join(texts))
            self.budget.add_request(self.now, self.now)
            reply = self.replies.pop(0) if self.replies else self.always
            event = reply(texts) if callable(reply) else reply
            if isinstance(event, Succeeded):
                self.budget.add_payment(texts, 0)
            return event._replace(now=self.now)
        if isinstance(action, SendCanary):
            self.requests.append("canary")
            self.budget.add_request(self.now, self.now)
            if self.canaries:
                return self.canaries.pop(0)._replace(now=self.now)
            self.budget.canaries += 1
            return CanaryServed(self.now)
        if isinstance(action, WaitUntil):
            self.waits.append(action.until - self.now)
            self.now = max(self.now, action.until)
            return WaitEnded(self.now, self.is_stopping)
        self.other.append(action)
        return None

    def logged(self) -> list[str]:
        return [action.event for action in self.other if isinstance(action, Log)]


def refuse(bad: str) -> Reply:
    """Refuse every request with one of these letters in it."""

    def reply(texts: list[str]) -> Event[str]:
        if set(bad).intersection(texts):
            return InputRefused(100.0, BAD, "too bad")
        return Succeeded(100.0, [text.upper() for text in texts])

    return reply


def failed(**fields: object) -> RequestFailed:
    return RequestFailed(100.0, "down", **fields)  # type: ignore[arg-type]


def test_one_request_with_all_items_is_enough_if_it_succeeds() -> None:
    simulated = Simulated()
    assert simulated.run() == ["A", "B", "C", "D"]
    assert simulated.requests == ["abcd"]
    assert simulated.other == []


def test_items_beyond_the_caps_are_sent_in_several_requests_in_their_order() -> None:
    simulated = Simulated(largest=3)
    assert simulated.run() == ["A", "B", "C", "D"]
    assert simulated.requests == ["abc", "d"]


@given(st.sets(st.sampled_from("abcdefghijklmnop")))
def test_halving_fails_exactly_the_bad_items(bad: set[str]) -> None:
    simulated = Simulated("abcdefghijklmnop")
    simulated.always = refuse("".join(bad))
    assert simulated.run() == [BAD if text in bad else text.upper() for text in simulated.texts]
    canaries = simulated.requests.count("canary")
    assert len(simulated.requests) - canaries <= 1 + 2 * len(bad) * 4
    assert canaries <= 2 + len(bad)


def test_two_halves_that_pass_after_a_refusal_teach_a_cap() -> None:
    simulated = Simulated()
    assert simulated.run(InputRefused(100.0, BAD, "at most 2 inputs")) == ["A", "B", "C", "D"]
    (lesson,) = [action for action in simulated.other if isinstance(action, LearnCap)]
    assert [list(half) for half in lesson.halves] == [[0, 1], [2, 3]]
    assert (list(lesson.refused), lesson.reason) == ([0, 1, 2, 3], "at most 2 inputs")


def test_a_half_that_is_refused_too_teaches_no_cap() -> None:
    simulated = Simulated()
    simulated.always = refuse("a")
    simulated.run()
    assert not [action for action in simulated.other if isinstance(action, LearnCap) and 0 in action.refused]


def test_a_failed_request_is_retried_after_a_back_off_that_grows() -> None:
    simulated = Simulated()
    assert simulated.run(failed(), failed()) == ["A", "B", "C", "D"]
    assert simulated.requests == ["abcd"] * 3
    assert 0.5 <= simulated.waits[0] <= 1.0 <= simulated.waits[1] <= 2.0


def test_a_wait_that_the_provider_names_is_kept_to() -> None:
    simulated = Simulated()
    simulated.run(failed(retry_after_s=7.0))
    assert simulated.waits == [7.0]


def test_after_the_last_retry_the_items_are_deferred_until_the_breaker_allows_a_probe() -> None:
    simulated = Simulated()
    assert simulated.run(failed(), failed(), failed(cooldown_until=500.0)) == [None] * 4
    assert simulated.call.wait_until == 500.0
    assert simulated.logged() == ["provider_request_failed"] * 3


def test_a_call_waits_no_longer_than_its_share_of_the_slot() -> None:
    simulated = Simulated()
    paused = ProviderPaused(100.0, 100.0 + MAX_WAIT_S + 1)
    assert simulated.run(paused) == [None] * 4
    assert (simulated.waits, simulated.call.wait_until) == ([], paused.until), "it is deferred at once instead"


def test_a_short_pause_is_waited_for_and_is_not_a_failure() -> None:
    simulated = Simulated(policy=RetryPolicy(Backoff(), 0))
    assert simulated.run(ProviderPaused(100.0, 103.0)) == ["A", "B", "C", "D"]
    assert simulated.waits == [3.0]


def test_an_unavailable_provider_ends_the_call_and_earlier_results_are_kept() -> None:
    simulated = Simulated(largest=2)
    outcomes = simulated.run(simulated.succeed, ProviderUnavailable(100.0, 160.0))
    assert outcomes == ["A", "B", None, None]
    assert simulated.call.wait_until == 160.0


def test_without_a_known_time_an_unavailable_provider_is_asked_again_after_a_back_off() -> None:
    simulated = Simulated()
    simulated.run(ProviderUnavailable(100.0))
    assert 100.5 <= simulated.call.wait_until <= 101.0


def test_a_stop_during_a_wait_ends_the_call() -> None:
    simulated = Simulated(is_stopping=True)
    assert simulated.run(failed()) == [None] * 4
    assert simulated.requests == ["abcd"]


def test_a_request_that_is_to_be_repeated_is_repeated_without_a_wait() -> None:
    simulated = Simulated()
    assert simulated.run(RetryAtOnce(100.0)) == ["A", "B", "C", "D"]
    assert (simulated.requests, simulated.waits) == (["abcd", "abcd"], [])


def test_a_refused_call_fails_the_items_of_its_request_only() -> None:
    simulated = Simulated(largest=2)
    assert simulated.run(CallRefused(100.0, BAD)) == [BAD, BAD, "C", "D"]


def test_an_item_on_which_the_provider_fails_is_isolated_last_and_fails_after_max_retries() -> None:
    simulated = Simulated("abcdefgh", largest=4, policy=RetryPolicy(Backoff(first=0.01), 3))
    simulated.always = lambda texts: failed(server_error=BAD) if "b" in texts else simulated.succeed(texts)
    assert simulated.run() == ["A", BAD, "C", "D", "E", "F", "G", "H"]
    isolation = ["abcd", "abcd", "canary", "abcd", "efgh", "cd", "ab", "b", "a"]
    assert simulated.requests == [*isolation, "b", "b", "b"]


def test_a_server_error_after_other_failures_is_waited_for_and_not_searched_by_halving() -> None:
    simulated = Simulated(policy=RetryPolicy(Backoff(first=0.01), 5))
    assert simulated.run(failed(), failed(), failed(server_error=BAD)) == ["A", "B", "C", "D"]
    assert simulated.requests == ["abcd"] * 4


def reject(texts: list[str], *bad: str, is_unmatched: bool = False) -> Event[str]:
    """Reject the results of these items, or of all if they are unmatched."""
    rejected = {at: BAD for at, text in enumerate(texts) if text in bad or is_unmatched}
    return Succeeded(100.0, [None if at in rejected else text for at, text in enumerate(texts)], rejected, is_unmatched)


def test_a_rejected_result_is_asked_for_once_more_and_then_fails() -> None:
    simulated = Simulated()
    simulated.always = lambda texts: reject(texts, "b", "d")
    assert simulated.run() == ["a", BAD, "c", BAD]
    assert simulated.requests == ["abcd", "bd"]


def test_results_that_cannot_be_matched_are_searched_by_halving_a_bounded_number_of_times() -> None:
    simulated = Simulated()
    simulated.always = lambda texts: reject(texts, is_unmatched="c" in texts)
    assert simulated.run() == ["a", "b", BAD, "d"]
    assert sorted(simulated.requests) == ["ab", "abcd", "abcd", "c", "cd", "d"]
    endless = Simulated([f"text {number}" for number in range(256)])
    endless.always = lambda texts: reject(texts, is_unmatched=True)
    assert endless.run() == [BAD] * 256
    assert len(endless.requests) < 50


@pytest.mark.parametrize("bad", [0, 37, 63])
def test_one_result_that_cannot_be_matched_is_found_among_many(bad: int) -> None:
    texts = [f"text {number}" for number in range(64)]
    simulated = Simulated(texts)
    simulated.always = lambda asked: reject(asked, is_unmatched=f"text {bad}" in asked)
    assert simulated.run() == [BAD if number == bad else text for number, text in enumerate(texts)]


def test_items_that_the_budget_does_not_cover_are_sent_back_with_the_size_of_their_request() -> None:
    simulated = Simulated(largest=3, budget=RequestBudget(1))
    assert simulated.run() == ["A", "B", "C", None]
    assert simulated.budget.requeue == {"d": 1}


def test_the_halves_of_a_refused_request_return_in_smaller_requests() -> None:
    simulated = Simulated(budget=RequestBudget(1))
    assert simulated.run(InputRefused(100.0, BAD, "no")) == [None] * 4
    assert simulated.budget.requeue == dict.fromkeys(TEXTS, 2)


def test_items_that_may_have_been_paid_for_are_not_sent_again_under_a_quota() -> None:
    simulated = Simulated(budget=RequestBudget(8))

    def paid(texts: list[str]) -> Event[str]:
        simulated.budget.add_payment(texts, 4)
        return failed()

    assert simulated.run(paid) == [None] * 4
    assert (simulated.requests, simulated.budget.requeue) == (["abcd"], {})


def test_rejected_items_that_the_budget_does_not_cover_are_rechecked_in_a_later_batch() -> None:
    simulated = Simulated(budget=RequestBudget(1))
    simulated.run(lambda texts: reject(texts, "c"))
    assert simulated.call.open_rechecks == [2]
    later = Simulated("xc", rechecks=[1])
    later.always = lambda texts: reject(texts, "c")
    assert later.run() == ["x", BAD], "the second rejection is final"
    assert later.requests == ["x", "c"]


def test_an_event_that_does_not_fit_the_action_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="not the outcome of a request"):
        Simulated().run(WaitEnded(100.0))
