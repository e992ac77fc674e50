"""What follows a poll that fails: pauses, the circuit breaker, another token."""

from __future__ import annotations

from common.failures.breaker import State
from common.failures.errors import Throttled
from common.wire import messages as m
from stages.fetcher.actions import Poll
from stages.fetcher.page import PendingPage
from tests.decisions import log_fields, of_type, sent_to
from tests.fetcher.fetching import INBOX, INTERVAL, TOLD, Fetching, settled
from tests.samples import names

# ---- failures ----


def test_a_failed_poll_is_tried_again_after_growing_pauses() -> None:
    fetcher = Fetching(breaker_threshold=1000)
    waits = []
    for _ in range(8):
        fetcher.failed()
        begun = fetcher.now.mono
        while not fetcher.polling:
            fetcher.live(0.1, 0.1)
        waits.append(fetcher.now.mono - begun)
    assert 0.5 <= waits[0] <= 1.1
    assert 30 <= waits[-1] <= 60.2
    assert waits == sorted(waits) or all(waits[i] < waits[i + 2] for i in range(5))


def test_a_failed_poll_is_logged_with_its_reason() -> None:
    assert log_fields("poll_failed", Fetching().failed()) == {"level": "warning", "reason": "down"}


def test_no_reason_to_poll_shortens_the_pause_after_a_failure() -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page(*names(10))
    fetcher.after(1).published("t0", "t1", "t2")
    fetcher.failed(Throttled("busy", 100.0))
    fetcher.deferred("t3", seconds=1)
    fetcher.published("t4")
    assert not fetcher.polling
    assert of_type(Poll, fetcher.live(99)) == []  # leases expire and deferrals end meanwhile
    assert len(of_type(Poll, fetcher.live(2))) == 1


def test_a_page_ends_the_pauses_after_failures() -> None:
    fetcher = Fetching()
    fetcher.failed()
    fetcher.live(2)
    fetcher.page("a")
    assert settled(fetcher, "a")


def test_a_throttled_poll_shows_on_ready() -> None:
    fetcher = Fetching()
    fetcher.failed(Throttled("too many", 100))
    (blocker,) = fetcher.state.report(fetcher.now).blockers
    assert blocker == "the API throttles polls: too many; next poll in 100 s"
    fetcher.live(101)
    fetcher.page()
    assert fetcher.state.report(fetcher.now).blockers == []


def test_the_fetcher_is_not_ready_from_the_first_failed_poll_until_one_succeeds() -> None:
    fetcher = Fetching(breaker_threshold=1000)
    for _ in range(20):
        fetcher.failed()
        for _ in range(700):
            assert fetcher.state.report(fetcher.now).blockers == ["the API does not answer polls: down"]
            if fetcher.polling:
                break
            fetcher.live(0.1, 0.1)
    fetcher.page()
    assert fetcher.state.report(fetcher.now).blockers == []


def test_a_token_that_is_refused_once_is_not_told_as_a_failure_of_the_api() -> None:
    fetcher = Fetching()
    fetcher.failed(rejected="one")
    assert fetcher.state.report(fetcher.now).blockers == ["the API refused the access token (401 or 403)"]
    fetcher.token("two")
    assert fetcher.state.report(fetcher.now).blockers == []


def test_a_token_that_is_refused_once_is_no_failed_poll() -> None:
    fetcher = Fetching()
    fetcher.failed(rejected="one")
    fetcher.token("two")
    assert fetcher.state.report(fetcher.now).blockers == []
    fetcher.failed(rejected="two")
    fetcher.live(3)
    fetcher.token("three")
    assert fetcher.state.report(fetcher.now).blockers == ["the API does not answer polls: down"]


def test_the_publisher_is_told_of_each_poll_that_succeeded() -> None:
    fetcher = Fetching()
    assert TOLD not in fetcher.failed()
    fetcher.live(3)
    assert TOLD in list(fetcher.state.on_page(PendingPage(0.0, [], 0, True, {}, []), fetcher.now))


def poll_breaker(fetcher: Fetching) -> State:
    return fetcher.state.breakers[0].state


def test_a_new_token_ends_the_pause_of_the_circuit_breaker() -> None:
    fetcher = Fetching(breaker_threshold=1, backoff_factor=1.0)
    fetcher.failed()
    assert poll_breaker(fetcher) is State.OPEN
    fetcher.token("two")
    assert poll_breaker(fetcher) is State.HALF_OPEN


def test_the_first_refusal_of_a_token_does_not_count_for_the_circuit_breaker() -> None:
    fetcher = Fetching(breaker_threshold=1)
    fetcher.failed(rejected="one")
    assert poll_breaker(fetcher) is State.CLOSED
    fetcher.token("two")
    assert fetcher.polling
    fetcher.failed(rejected="two")
    assert poll_breaker(fetcher) is State.OPEN
    fetcher.live(70)
    fetcher.page()
    fetcher.failed(rejected="two")
    assert poll_breaker(fetcher) is State.CLOSED


def test_many_failed_polls_open_the_circuit_breaker() -> None:
    fetcher = Fetching(breaker_threshold=2)
    fetcher.failed()
    fetcher.live(3)
    fetcher.failed()
    assert fetcher.state.report(fetcher.now).blockers
    fetcher.live(70)
    assert fetcher.polling
    fetcher.page()
    assert fetcher.state.report(fetcher.now).blockers == []


def test_a_refused_token_is_replaced_and_the_poll_made_again_at_once() -> None:
    fetcher = Fetching()
    done = fetcher.failed(rejected="one")
    assert sent_to("token_broker", done) == [m.TokenRequest(INBOX, "one")]
    assert not fetcher.polling
    fetcher.token("two")
    assert fetcher.poll is not None
    assert fetcher.poll.token.fingerprint == "two"


def test_a_second_refused_token_in_a_row_is_followed_by_a_pause() -> None:
    fetcher = Fetching()
    fetcher.failed(rejected="one")
    fetcher.token("two")
    fetcher.failed(rejected="two")
    fetcher.token("three")
    assert not fetcher.polling
    fetcher.live(3)
    assert fetcher.polling


def test_after_a_token_that_worked_a_refused_one_is_replaced_at_once_again() -> None:
    fetcher = Fetching()
    for name in ("two", "three", "four"):
        assert fetcher.poll is not None
        fetcher.failed(rejected=fetcher.poll.token.fingerprint)
        fetcher.token(name)
        assert fetcher.polling
        fetcher.page()
        fetcher.live(INTERVAL)
