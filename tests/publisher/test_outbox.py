"""The outbox on a real disk: what a result becomes when it is refused, sent again, dropped."""

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
    """Write these in one turn; the ids of the stored results and of the dead letters then."""
    for action in actions:
        outbox.writes[type(action)](action)
    outbox.store.commit()
    return set(outbox.entries()), set(outbox.dead())


def test_a_dead_letter_is_replayed_with_the_result_that_it_was_buried_with(outbox: Outbox) -> None:
    assert turn(outbox, PutResult(RESULT)) == ({"a"}, set())
    assert turn(outbox, MoveToDeadLetters("a", 422, "refused", 2.0)) == (set(), {"a"})
    assert turn(outbox, ReplayDeadLetter("a")) == ({"a"}, set())
    assert outbox.result("a") == RESULT


def test_also_in_the_turn_of_its_burial(outbox: Outbox) -> None:
    turn(outbox, PutResult(RESULT))
    assert turn(outbox, MoveToDeadLetters("a", 422, "refused", 2.0), ReplayDeadLetter("a")) == ({"a"}, set())
    assert outbox.result("a") == RESULT


def test_a_dropped_one_is_gone(outbox: Outbox) -> None:
    turn(outbox, PutResult(RESULT))
    turn(outbox, MoveToDeadLetters("a", 422, "refused", 2.0))
    assert turn(outbox, DropDeadLetter("a")) == (set(), set())
    with pytest.raises(KeyError):
        outbox.result("a")
