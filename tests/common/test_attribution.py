"""Who is to blame, told from what others got."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.failures.attribution import NEAR_S, Attribution, Blame

PATCH = ("api", "PATCH")
GET = ("api", "GET")


def test_the_first_refusal_blames_neither() -> None:
    found = Attribution().refused("a", PATCH, 1.0)
    assert (found.blame, found.scope, found.counted) == (Blame.UNKNOWN, PATCH, 0)


def test_an_item_is_to_blame_once_another_was_served_after_its_first_refusal() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    evidence.served("b", PATCH, 2.0)
    assert evidence.refused("a", PATCH, 3.0).blame is Blame.ITEM
    assert evidence.refused("a", PATCH, 4.0).counted == 2


def test_what_was_served_before_the_first_refusal_proves_nothing() -> None:
    evidence = Attribution()
    evidence.served("b", PATCH, 0.9)
    assert evidence.refused("a", PATCH, 1.0).blame is Blame.UNKNOWN
    assert evidence.refused("a", PATCH, 2.0).blame is Blame.UNKNOWN


def test_the_items_own_earlier_success_is_no_evidence() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    evidence.served("a", PATCH, 2.0)
    assert evidence.refused("a", PATCH, 3.0).blame is Blame.UNKNOWN


def test_two_refused_items_and_none_served_blame_the_scope() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    assert evidence.refused("b", PATCH, 1.1).blame is Blame.SCOPE
    assert evidence.is_failing(PATCH)
    evidence.served("c", PATCH, 2.0)
    assert not evidence.is_failing(PATCH)


def test_an_outage_that_follows_a_bad_item_is_not_counted_against_it() -> None:
    evidence = Attribution()
    evidence.refused("bad", PATCH, 1.0)
    evidence.served("b", PATCH, 1.5)
    assert evidence.refused("bad", PATCH, 2.0).counted == 1
    evidence.refused("c", PATCH, 2.5)  # never refused before: the outage has begun
    for at in range(3, 10):
        assert evidence.refused("bad", PATCH, at).counted == 1


def test_in_an_outage_no_refusal_counts_against_any_item_however_long_it_lasts() -> None:
    evidence = Attribution()
    for at in range(50):
        evidence.served(f"good {at}", PATCH, at / 10)
    for at in range(10, 500):
        for item in "abc":
            found = evidence.refused(item, PATCH, float(at))
            assert found.counted == 0
            assert found.blame is not Blame.ITEM


def test_many_bad_items_are_each_to_blame_while_others_are_served() -> None:
    evidence = Attribution()
    bad = [f"bad {number}" for number in range(8)]
    for item in bad:
        evidence.refused(item, PATCH, 1.0)
    evidence.served("good", PATCH, 1.1)
    for at in (2.0, 3.0, 4.0):
        assert {evidence.refused(item, PATCH, at).blame for item in bad} == {Blame.ITEM}
    assert not evidence.is_failing(PATCH)


def test_evidence_is_in_force_for_a_bounded_time() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    evidence.served("b", PATCH, 2.0)
    assert evidence.refused("a", PATCH, 2.0 + NEAR_S + 1).blame is Blame.UNKNOWN


def test_a_success_in_one_endpoint_is_no_evidence_for_another() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    evidence.served("page", GET, 2.0)
    assert evidence.refused("a", PATCH, 3.0).blame is Blame.UNKNOWN
    assert evidence.has_evidence("a", ("api",), 1.0)


def test_the_widest_scope_in_which_nothing_is_served_is_named() -> None:
    evidence = Attribution()
    evidence.refused("t1", ("openai", "small"), 1.0)
    evidence.refused("t2", ("openai", "small"), 1.0)
    assert evidence.refused("t3", ("openai", "large"), 1.1).scope == ("openai",)
    evidence.served("t4", ("openai", "large"), 1.2)
    evidence.refused("t5", ("openai", "small"), 1.3)
    assert evidence.refused("t6", ("openai", "small"), 1.4).scope == ("openai", "small")


def test_a_forgotten_item_starts_again() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    evidence.served("b", PATCH, 2.0)
    assert evidence.refused("a", PATCH, 3.0).counted == 1
    evidence.forget("a", PATCH)
    assert evidence.refused("a", PATCH, 4.0).counted == 0


EVENTS = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.floats(0.01, 30)), max_size=60)


@given(EVENTS)
def test_no_item_is_blamed_unless_another_was_served_after_its_first_refusal(
    events: list[tuple[str, bool, float]],
) -> None:
    evidence = Attribution()
    first: dict[str, float] = {}
    served: list[tuple[str, float]] = []
    now = 0.0
    for item, good, wait in events:
        now += wait
        if good:
            evidence.served(item, PATCH, now)
            served.append((item, now))
            first.pop(item, None)
            continue
        first.setdefault(item, now)
        if evidence.refused(item, PATCH, now).blame is Blame.ITEM:
            assert any(other != item and first[item] < at >= now - NEAR_S for other, at in served)
