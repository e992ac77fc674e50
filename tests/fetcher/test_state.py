"""Which tasks the fetcher leases from a page, and what it sends to whom."""

from __future__ import annotations

from common.wire import messages as m
from stages.fetcher.actions import DeleteLease, Lease, PutLease
from stages.fetcher.outgoing import TASKS_A_MESSAGE
from stages.fetcher.page import PendingPage
from stages.fetcher.poll_schedule import UNKNOWN_TYPES_LOGGED_COUNT
from tests.decisions import START, counted, events, kinds, log_fields, of_type, sent_to
from tests.fetcher.fetching import INTERVAL, Fetching, candidate, dispatched, ids
from tests.samples import names

INVALID = m.Failure("invalid_content", "content.text is empty")


def test_new_tasks_are_leased_on_disk_before_they_leave() -> None:
    fetcher = Fetching()
    done = fetcher.page("a", "b")
    assert kinds(done) == ["PutLease", "PutLease", "Tasks"]
    assert of_type(PutLease, done)[0] == PutLease("a", Lease(fetcher.now.wall, 1, "text_embedding"))
    assert fetcher.leased == ["a", "b"]


def test_leased_tasks_go_to_the_rate_limiter_with_the_time_of_their_lease_and_attempt_1() -> None:
    fetcher = Fetching()
    done = fetcher.after(2).page("a")
    (task,) = dispatched(done)
    assert sent_to("rate_limiter", done) == [m.Tasks([task])]
    assert (task.id, task.leased_at, task.attempt) == ("a", fetcher.now.wall, 1)
    assert log_fields("tasks_leased", done)["task_id"] == "a"


def test_many_tasks_are_split_into_several_messages() -> None:
    fetcher = Fetching(max_in_flight=2 * TASKS_A_MESSAGE + 10)
    messages = of_type(m.Tasks, fetcher.page(*names(2 * TASKS_A_MESSAGE + 10)))
    assert [len(message.tasks) for message in messages] == [TASKS_A_MESSAGE, TASKS_A_MESSAGE, 10]
    assert [task.id for message in messages for task in message.tasks] == names(2 * TASKS_A_MESSAGE + 10)


def test_at_most_max_in_flight_tasks_are_leased_in_the_order_of_the_page() -> None:
    fetcher = Fetching(max_in_flight=3)
    assert ids(fetcher.page(*names(5))) == ["t0", "t1", "t2"]
    assert fetcher.state.room == 0


def test_candidates_without_room_are_buffered_and_fill_the_room_that_settled_tasks_leave() -> None:
    fetcher = Fetching(max_in_flight=3)
    fetcher.page(*names(6))
    assert ids(fetcher.published("t0", "t2")) == ["t3", "t4"]
    assert ids(fetcher.published("t1")) == ["t5"]
    assert ids(fetcher.published("t3")) == []


def test_buffered_candidates_are_dropped_after_a_polling_interval() -> None:
    fetcher = Fetching(max_in_flight=3)
    fetcher.page(*names(6))
    fetcher.after(INTERVAL).holding(*fetcher.leased)
    assert ids(fetcher.published("t0")) == ["t3"]
    fetcher.after(0.1)
    assert ids(fetcher.published("t1")) == []
    fetcher.published("t2", "t3")
    assert fetcher.polling


def test_a_new_page_replaces_the_buffer() -> None:
    fetcher = Fetching(max_in_flight=2)
    fetcher.page("a", "b", "canceled")
    fetcher.published("a", dead=["b"])
    assert fetcher.leased == ["canceled"]
    fetcher.live(INTERVAL, held=["canceled"])
    fetcher.page("c", "d")
    assert ids(fetcher.published("canceled")) == ["d"]


def test_tasks_that_are_leased_already_are_not_leased_again() -> None:
    fetcher = Fetching()
    fetcher.page("a", "b")
    done = fetcher.page("a", "b", "c")
    assert ids(done) == ["c"]
    assert [put.task_id for put in of_type(PutLease, done)] == ["c"]


def test_dead_letters_are_not_leased() -> None:
    fetcher = Fetching(dead=["a"])
    assert ids(fetcher.page("a", "b")) == ["b"]


def test_leases_from_before_a_restart_count_as_in_flight() -> None:
    fetcher = Fetching(max_in_flight=2, leases={"a": Lease(START.wall - 9)})
    assert ids(fetcher.page("a", "b", "c")) == ["b"]


def test_an_invalid_task_goes_to_the_publisher_as_a_failed_result() -> None:
    fetcher = Fetching()
    done = fetcher.page(candidate("bad", failure=INVALID), "good")
    assert ids(done) == ["good"]
    result = m.Result("bad", "text_embedding", fetcher.now.wall, failure=INVALID)
    assert sent_to("publisher", done) == [m.Results("", "", [result])]
    assert log_fields("task_invalid", done) == {"level": "warning", "task_id": "bad", "reason": INVALID.message}
    assert fetcher.leased == ["bad", "good"]
    assert kinds(done)[:2] == ["PutLease", "PutLease"]


def test_a_page_of_invalid_tasks_dispatches_nothing() -> None:
    done = Fetching().page(candidate("bad", failure=INVALID))
    assert of_type(m.Tasks, done) == []
    assert len(sent_to("publisher", done)) == 1


def test_settled_tasks_lose_their_leases() -> None:
    fetcher = Fetching()
    fetcher.page("a", "b", "c")
    done = fetcher.published("a", "b")
    assert of_type(DeleteLease, done) == [DeleteLease("a"), DeleteLease("b")]
    assert fetcher.leased == ["c"]


def test_a_draining_fetcher_leases_nothing_and_does_not_poll() -> None:
    fetcher = Fetching(max_in_flight=2)
    fetcher.page("a", "b", "c")
    assert list(fetcher.state.on_drain(fetcher.now)) == []
    assert ids(fetcher.published("a")) == []
    assert ids(fetcher.page("d")) == []
    fetcher.published("b")
    fetcher.live(2 * INTERVAL)
    assert not fetcher.polling


def test_skipped_elements_are_counted_by_reason() -> None:
    done = Fetching().page("a", unknown_type=3, malformed=2, no_id=1, known=7)
    assert counted("ai_tasks_skipped_total", done) == [
        (("unknown_type",), 3), (("malformed",), 2), (("no_id",), 1), (("known",), 7),
    ]  # fmt: skip
    assert events(done).count("page_element_skipped") == 2


def unknown(fetcher: Fetching, *types: str) -> list[str]:
    done = fetcher.did(fetcher.state.on_page(PendingPage(fetcher.now.wall, [], 1, True, {}, list(types)), fetcher.now))
    return events(done)


def test_an_unknown_type_is_logged_once() -> None:
    fetcher = Fetching()
    assert unknown(fetcher, "image", "sound") == ["unknown_task_type"] * 2
    assert unknown(fetcher, "image") == []


def test_only_a_bounded_number_of_unknown_types_is_logged() -> None:
    fetcher = Fetching()
    assert len(unknown(fetcher, *names(UNKNOWN_TYPES_LOGGED_COUNT + 5))) == UNKNOWN_TYPES_LOGGED_COUNT


def test_the_report_shows_the_counts_of_tasks_and_the_blockers() -> None:
    fetcher = Fetching(token=False, dead=["d"], breaker_threshold=1)
    report = fetcher.state.report(fetcher.now)
    assert report.facts == {"leased": 0, "refused": 0, "lost": 0, "dead_letters": 1}
    assert report.blockers == ["no access token yet"]
    fetcher.token("one")
    fetcher.page("a")
    assert fetcher.state.report(fetcher.now).blockers == []
    assert fetcher.state.report(fetcher.now).facts["leased"] == 1
    fetcher.failed()
    assert fetcher.state.report(fetcher.now).blockers == ["the API does not answer polls: down"]
    fetcher.deferred(seconds=600, key="*")
    assert fetcher.state.report(fetcher.now).facts["deferred_until"] == fetcher.now.wall + 600
