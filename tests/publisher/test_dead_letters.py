"""What the publisher does when an operator replays or drops dead letters."""

from __future__ import annotations

from common.wire import messages as m
from stages.publisher.actions import DropDeadLetter, MoveToDeadLetters, PutResult, ReplayDeadLetter, SendPatch, Settle
from tests.decisions import events, of_type, sent_to
from tests.publisher.publishing import Publishing, sending


def test_a_replayed_dead_letter_is_sent_again_and_settled() -> None:
    publisher = Publishing(dead=["a"])
    done = publisher.letters(replay=["a"])
    assert of_type(ReplayDeadLetter, done) == [ReplayDeadLetter("a")]
    assert publisher.patched == ["a"]
    assert events(done) == ["dead_letter_replayed"]
    done = publisher.respond(200, "a")
    assert len(of_type(Settle, done)) == 1
    assert sent_to("fetcher", done) == [m.Published(["a"])]


def test_a_replayed_dead_letter_has_all_its_tries_again() -> None:
    publisher = sending("a", max_retries=1)
    publisher.respond(400, "a")
    publisher.live(10)
    publisher.respond(400, "a")
    publisher.letters(replay=["a"])
    assert of_type(MoveToDeadLetters, publisher.respond(400, "a")) == []


def test_a_dropped_dead_letter_is_deleted_and_its_task_can_be_processed_again() -> None:
    publisher = Publishing(dead=["a", "b"])
    done = publisher.letters(drop=["a"])
    assert of_type(DropDeadLetter, done) == [DropDeadLetter("a")]
    assert events(done) == ["dead_letter_dropped"]
    assert sent_to("fetcher", done) == [m.Published([], [], ["a"])]
    assert set(publisher.state.dead) == {"b"}
    assert len(of_type(PutResult, publisher.results("a"))) == 1


def test_replaying_and_dropping_other_tasks_does_nothing() -> None:
    publisher = Publishing(stored=["a"])
    done = publisher.letters(replay=["a", "unknown"], drop=["a", "unknown"])
    assert done == []
    assert publisher.outbox == {"a"}


def test_a_dead_letter_in_both_lists_is_replayed_and_not_dropped() -> None:
    publisher = Publishing(dead=["a"])
    done = publisher.letters(replay=["a"], drop=["a"])
    assert of_type(DropDeadLetter, done) == []
    assert of_type(SendPatch, done) != []
