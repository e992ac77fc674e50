"""What the publisher does while its disk is slow."""

from __future__ import annotations

from common.api.patch_queue import CONNECTIONS
from stages.publisher.actions import ResultsSettled
from stages.publisher.state import MOST_UNSETTLED
from tests.publisher.publishing import Publishing


def test_while_too_many_acceptances_are_not_on_disk_no_patch_leaves() -> None:
    names = [str(number) for number in range(MOST_UNSETTLED + 100)]
    publisher = Publishing()
    publisher.results(*names)
    publisher.held = (ResultsSettled,)
    sent = list(publisher.patched)
    for _ in range(200):
        under_way = list(publisher.state._queue.sending)
        publisher.respond(200, *under_way)
        sent += publisher.patched
    assert MOST_UNSETTLED <= len(sent) <= MOST_UNSETTLED + CONNECTIONS
    for event in publisher.uncommitted:
        publisher.did(publisher.state.on_settled(event, publisher.now))
        sent += publisher.patched
    assert len(sent) > MOST_UNSETTLED + CONNECTIONS
