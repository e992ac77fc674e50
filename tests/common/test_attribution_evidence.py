"""What counts as evidence, at its edges: which success, how old, and which doubt takes it away again."""

from __future__ import annotations

from common.failures.attribution import NEAR_S, Attribution, Blame

PATCH = ("api", "PATCH")


def test_the_last_success_of_another_item_is_kept_while_an_item_succeeds_again_and_again() -> None:
    """Whichever of the two names comes first in the alphabet, and although equal names are different objects."""
    for item, other in (("a1", "b1"), ("b1", "a1")):
        evidence = Attribution()
        evidence.served(other, PATCH, 1.0)
        for at in (2.0, 3.0, 4.0):
            evidence.served("".join(list(item)), PATCH, at)
        assert evidence.has_evidence(item, PATCH, 0.5)
        assert not evidence.has_evidence(item, PATCH, 1.0)
        assert not evidence.has_evidence(item, PATCH, 1.5)
        assert evidence.last_served_at(PATCH) == 4.0


def test_nothing_was_served_yet_in_a_scope_that_is_only_known_from_refusals() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    assert evidence.last_served_at(PATCH) == float("-inf")
    assert evidence.last_served_at(("api", "GET")) == float("-inf")


def test_evidence_counts_until_exactly_its_longest_age() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    evidence.served("b", PATCH, 2.0)
    assert evidence.refused("a", PATCH, 2.0 + NEAR_S).blame is Blame.ITEM


def test_the_doubt_about_an_item_that_is_over_hides_no_evidence() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    evidence.served("b", PATCH, 2.0)
    evidence.refused("c", PATCH, 3.0)
    assert evidence.refused("a", PATCH, 4.0).blame is not Blame.ITEM
    evidence.forget("a", PATCH)
    evidence.forget("c", PATCH)
    evidence.refused("a", PATCH, 5.0)
    evidence.served("b", PATCH, 6.0)
    evidence.refused("c", PATCH, 7.0)
    evidence.forget("c", PATCH)
    assert evidence.refused("a", PATCH, 8.0).blame is Blame.ITEM


def test_the_widest_scope_that_can_fail_has_a_name() -> None:
    """Two services that fail at the same time do not make a scope of everything."""
    evidence = Attribution()
    evidence.refused("t1", ("openai", "small"), 1.0)
    evidence.refused("t2", ("openai", "small"), 1.0)
    evidence.refused("t3", ("ollama", "nomic"), 1.0)
    assert evidence.refused("t4", ("ollama", "nomic"), 1.1).scope == ("ollama", "nomic")
    assert evidence.refused("t5", ("openai", "small"), 1.2).scope == ("openai", "small")


def test_a_success_at_the_moment_of_a_doubt_shows_that_the_wider_scope_works() -> None:
    evidence = Attribution()
    evidence.refused("t1", ("openai", "small"), 1.0)
    evidence.served("t2", ("openai", "large"), 2.0)
    evidence.refused("t3", ("openai", "small"), 2.0)
    evidence.refused("t4", ("openai", "large"), 2.0)
    assert evidence.refused("t5", ("openai", "small"), 2.0).scope == ("openai", "small")


def test_a_success_at_the_moment_of_the_first_refusal_proves_nothing() -> None:
    evidence = Attribution()
    evidence.refused("a", PATCH, 1.0)
    evidence.served("b", PATCH, 1.0)
    assert evidence.refused("a", PATCH, 2.0).blame is not Blame.ITEM


def test_a_scope_fails_when_a_second_item_is_refused_and_not_before() -> None:
    evidence = Attribution()
    assert not evidence.is_failing(PATCH)
    evidence.refused("a", PATCH, 1.0)
    evidence.refused("a", PATCH, 2.0)
    assert not evidence.is_failing(PATCH)
    evidence.refused("b", PATCH, 3.0)
    assert evidence.is_failing(PATCH)
