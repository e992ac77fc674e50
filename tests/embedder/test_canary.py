"""A canary decides whether a refusal is the fault of a text: the decisions of one call, without I/O."""

from __future__ import annotations

import pytest

from common.failures.retry import Backoff
from stages.embedder.calling.call_actions import CallRefused, InputRefused, ProviderUnavailable, RetryAtOnce
from stages.embedder.calling.evidence import Evidence
from stages.embedder.calling.pieces import RetryPolicy
from stages.embedder.calling.request_budget import RequestBudget
from tests.embedder.test_provider_call import BAD, Simulated, failed, refuse

REFUSED = InputRefused(100.0, BAD, "budget exceeded")
CLOSED = ProviderUnavailable(100.0, 160.0)


def refused_by_all(**fields: object) -> Simulated:
    """A call to a provider that refuses everything, and whose gate closes when it refuses the canary."""
    simulated = Simulated(canaries=[CLOSED], **fields)  # type: ignore[arg-type]
    simulated.always = lambda _: REFUSED
    return simulated


def test_a_refused_canary_ends_the_call_and_fails_no_item() -> None:
    simulated = refused_by_all()
    assert simulated.run() == [None] * 4
    assert simulated.requests == ["abcd", "canary"]
    assert simulated.call.wait_until == 160.0


def test_a_single_refused_item_does_not_fail_when_the_canary_is_refused_too() -> None:
    simulated = refused_by_all(texts="a")
    assert simulated.run() == [None]


def test_after_a_refused_canary_the_next_call_begins_with_one() -> None:
    evidence = Evidence()
    refused_by_all(evidence=evidence).run()
    still = refused_by_all(evidence=evidence)
    assert still.run() == [None] * 4
    assert still.requests == ["canary"]
    works = Simulated(evidence=evidence)
    assert works.run() == ["A", "B", "C", "D"]
    assert works.requests == ["canary", "abcd"]
    assert Simulated(evidence=evidence).run() == ["A", "B", "C", "D"]


def test_an_item_sent_alone_fails_at_the_second_refusal_with_a_success_in_between() -> None:
    simulated = Simulated("a")
    simulated.always = refuse("a")
    assert simulated.run() == [BAD]
    assert simulated.requests == ["a", "canary", "a"]


def test_an_item_that_is_served_the_second_time_does_not_fail() -> None:
    simulated = Simulated("a")
    assert simulated.run(REFUSED) == ["A"]


def test_a_success_of_another_call_after_the_refusal_makes_a_canary_needless() -> None:
    evidence = Evidence()
    simulated = Simulated(evidence=evidence)

    def refused_while_others_are_served(texts: list[str]) -> InputRefused:
        if len(simulated.requests) == 1:
            evidence.served("model", "of another batch", 100.0)
        return REFUSED

    simulated.run(refused_while_others_are_served)
    assert simulated.requests == ["abcd", "canary", "ab", "cd"], "it came before the refusal"


def test_an_outage_that_begins_during_halving_fails_no_item() -> None:
    simulated = Simulated("abcdefgh", canaries=[])
    simulated.always = lambda _: REFUSED
    simulated.canaries = []
    served = iter([True])

    def served_once() -> object:
        return next(served, False)

    original = simulated.reply

    def reply(action: object) -> object:
        event = original(action)  # type: ignore[arg-type]
        is_canary = simulated.requests[-1:] == ["canary"] and type(action).__name__ == "SendCanary"
        return event if not is_canary or served_once() else CLOSED

    simulated.reply = reply  # type: ignore[method-assign, assignment]
    assert simulated.run() == [None] * 8
    assert simulated.requests.count("canary") == 2
    assert len(simulated.requests) <= 7, "three refusals in a row ask for a canary"


def test_one_canary_at_the_end_decides_for_all_items_that_were_refused_alone() -> None:
    simulated = Simulated("abcd", largest=1)
    simulated.always = refuse("cd")
    assert simulated.run() == ["A", "B", BAD, BAD]
    assert simulated.requests == ["a", "b", "c", "d", "canary", "c", "d"]


def test_items_are_not_failed_by_a_refused_canary_at_the_end() -> None:
    simulated = Simulated("abcd", largest=1, canaries=[CLOSED])
    simulated.always = refuse("cd")
    assert simulated.run() == ["A", "B", None, None]


def test_a_canary_that_meets_an_outage_is_retried_and_then_ends_the_call() -> None:
    simulated = Simulated(canaries=[failed(), RetryAtOnce(100.0)])
    simulated.always = refuse("a")
    assert simulated.run() == [BAD, "B", "C", "D"]
    assert simulated.requests[:4] == ["abcd", "canary", "canary", "canary"]
    gone = Simulated(canaries=[failed()] * 9, policy=RetryPolicy(Backoff(first=0.1), 1))
    gone.always = refuse("a")
    assert gone.run() == [None] * 4


def test_a_refused_call_fails_its_items_only_when_the_canary_is_served() -> None:
    assert Simulated().run(CallRefused(100.0, BAD)) == [BAD] * 4
    assert Simulated(canaries=[CLOSED]).run(CallRefused(100.0, BAD)) == [None] * 4


def test_an_item_on_which_the_server_fails_is_not_failed_in_an_outage() -> None:
    simulated = Simulated("a", canaries=[CLOSED])
    simulated.always = lambda _: failed(server_error=BAD)
    assert simulated.run() == [None]
    assert simulated.requests == ["a", "a", "canary"]


def test_a_canary_counts_against_the_request_budget() -> None:
    simulated = Simulated(budget=RequestBudget(2))
    simulated.always = refuse("a")
    assert simulated.run() == [None] * 4
    assert simulated.requests == ["abcd", "canary"]
    assert simulated.budget.requeue == dict.fromkeys("abcd", 2)


def test_without_a_request_left_for_a_canary_the_next_batch_begins_with_one() -> None:
    evidence = Evidence()
    alone = Simulated("a", evidence=evidence, budget=RequestBudget(1), always=refuse("a"))
    assert alone.run() == [None]
    assert alone.budget.requeue == {"a": 1}
    second = Simulated("a", evidence=evidence, budget=RequestBudget(1), always=refuse("a"))
    assert (second.run(), second.requests) == ([None], ["canary"])
    third = Simulated("a", evidence=evidence, budget=RequestBudget(1), always=refuse("a"))
    assert (third.run(), third.requests) == ([BAD], ["a"])


def test_under_a_quota_the_canary_at_the_begin_takes_the_place_of_one_text() -> None:
    evidence = Evidence()
    evidence.leave_undecided("model", 100.0)
    simulated = Simulated(evidence=evidence, budget=RequestBudget(8))
    assert simulated.run() == ["A", "B", "C", None]
    assert simulated.budget.requeue == {"d": 4}


@pytest.mark.parametrize("model", ["model", "another"])
def test_evidence_is_kept_for_each_model(model: str) -> None:
    evidence = Evidence()
    evidence.leave_undecided("model", 100.0)
    evidence.served(model, "text", 101.0)
    assert (evidence.undecided_since("model") is None) == (model == "model")


def test_the_number_of_remembered_texts_and_models_is_bounded() -> None:
    evidence = Evidence()
    for number in range(20_000):
        evidence.refused("model", f"text {number}", 100.0)
        evidence.leave_undecided(f"model {number}", 100.0)
    assert len(evidence._cases) == 10_000
    assert len(evidence._undecided) == 1000
