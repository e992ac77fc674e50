"""The outbox on a real disk: what happens to a result that is refused, replayed or dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.wire.messages import Result
from stages.publisher.actions import DropDeadLetter, MoveToDeadLetters, PutResult, ReplayDeadLetter
from stages.publisher.outbox import Outbox

RESULT = Result("a", "text_embedding", 1.0, b"\0\0\x80?")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path)
    yield made
    made.store.close()


def turn(outbox: Outbox, *actions: Any) -> tuple[set[str], set[str]]:
    """Write these actions in one turn; returns the ids of the stored results and of the dead letters after it."""
    for action in actions:
        outbox.writes[type(action)](action)
    outbox.store.commit()
    return set(outbox.entries()), set(outbox.dead())


def test_a_replayed_dead_letter_has_its_old_result(outbox: Outbox) -> None:
    assert turn(outbox, PutResult(RESULT)) == ({"a"}, set())
    assert turn(outbox, MoveToDeadLetters("a", 422, "refused", 2.0)) == (set(), {"a"})
    assert turn(outbox, ReplayDeadLetter("a")) == ({"a"}, set())
    assert outbox.result("a") == RESULT


def test_a_dead_letter_can_be_replayed_in_the_turn_in_which_it_was_written(outbox: Outbox) -> None:
    turn(outbox, PutResult(RESULT))
    assert turn(outbox, MoveToDeadLetters("a", 422, "refused", 2.0), ReplayDeadLetter("a")) == ({"a"}, set())
    assert outbox.result("a") == RESULT


def test_a_dropped_dead_letter_is_deleted(outbox: Outbox) -> None:
    turn(outbox, PutResult(RESULT))
    turn(outbox, MoveToDeadLetters("a", 422, "refused", 2.0))
    assert turn(outbox, DropDeadLetter("a")) == (set(), set())
    with pytest.raises(KeyError):
        outbox.result("a")


def test_a_result_that_was_just_stored_is_not_read_from_disk_and_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.publisher.outbox.MOST_KEPT_BYTES", 100)
    outbox = Outbox(tmp_path)
    stored = [Result(str(number), "text_embedding", 1.0, bytes(40)) for number in range(4)]
    for one in stored:
        outbox.writes[PutResult](PutResult(one))
    assert [outbox.result(str(number)) for number in range(2)] == stored[:2]  # nothing is committed yet
    with pytest.raises(KeyError):
        outbox.result("0")
    outbox.store.commit()
    assert [outbox.result(str(number)) for number in range(4)] == stored
    outbox.store.close()
