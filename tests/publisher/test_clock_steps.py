"""A wall clock that is set does not bring a settled task back."""

from __future__ import annotations

from common.process.actions import Instant
from common.wire import messages as m
from tests.decisions import sent_to
from tests.publisher.publishing import sending


def test_a_late_result_is_dropped_although_the_clock_was_set_back_before_the_first_was_accepted() -> None:
    publisher = sending("a", breaker_threshold=5)
    publisher.now = Instant(publisher.now.mono + 1, publisher.now.wall - 1e9)
    publisher.respond(200, "a")
    publisher.live(1)
    done = publisher.results("a")
    assert publisher.patched == []
    assert sent_to("fetcher", done) == [m.Published(["a"])]
