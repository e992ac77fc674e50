"""What the publisher stores, sends and settles while the API accepts everything."""

from __future__ import annotations

import pytest

from common.api.patch_queue import CONNECTIONS
from common.process.actions import Observe
from common.recently_settled import BUCKET_S, DeleteSettled, Record
from common.wire import messages as m
from common.wire.timing import DRAIN_AT_LEAST_S, DRAINING_SILENT_AFTER_S, SETTLED_KEPT_S
from stages.publisher.actions import PutResult, SendPatch, Settle
from stages.publisher.state import SETTLE_AFTER_S, SETTLE_BATCH
from tests.decisions import counted, events, kinds, of_type, sent_to
from tests.publisher.publishing import INBOX, Publishing
from tests.samples import LEASED_AT, names, result


def test_a_result_is_stored_before_it_is_acknowledged_or_sent() -> None:
    publisher = Publishing()
    done = publisher.results("a", "b", reply_to="ipc://embedder_00")
    assert kinds(done) == ["PutResult", "PutResult", "Stored", "Holding", "SendPatch", "SendPatch"]
    assert [put.result for put in of_type(PutResult, done)] == [result("a"), result("b")]
    assert sent_to("ipc://embedder_00", done) == [m.Stored("b1")]
    assert events(done) == ["results_stored"]


def test_results_without_an_inbox_to_reply_to_are_not_acknowledged() -> None:
    assert of_type(m.Stored, Publishing().results("a")) == []


def test_a_result_waits_for_an_access_token_and_is_sent_with_it() -> None:
    publisher = Publishing(token=False)
    publisher.results("a")
    assert publisher.patched == []
    publisher.token("one")
    assert publisher.patched == ["a"]
    assert publisher.shown == "one"


def test_a_publisher_requests_a_token_until_it_has_one_and_again_before_it_expires() -> None:
    publisher = Publishing(token=False)
    assert of_type(m.TokenRequest, publisher.live(3)) == [m.TokenRequest(INBOX)] * 3
    publisher.token("one", expires_in=10)
    assert of_type(m.TokenRequest, publisher.live(9)) == []
    assert len(of_type(m.TokenRequest, publisher.live(2))) == 1


def test_at_most_one_patch_for_each_connection_is_under_way() -> None:
    publisher = Publishing()
    publisher.results(*names(CONNECTIONS + 5))
    assert publisher.patched == names(CONNECTIONS)
    publisher.respond(200, "t0", "t3")
    assert publisher.patched == [f"t{CONNECTIONS}", f"t{CONNECTIONS + 1}"]


def test_results_that_were_stored_before_a_restart_are_sent_again() -> None:
    publisher = Publishing(stored=["a", "b"])
    assert publisher.patched == ["a", "b"]


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_an_accepted_result_is_settled_and_the_fetcher_is_told(status: int) -> None:
    publisher = Publishing()
    publisher.results("a")
    done = publisher.after(2).respond(status, "a")
    (settle,) = of_type(Settle, done)
    assert (settle.record.at, settle.record.ids) == (publisher.now.wall, ["a"])
    assert sent_to("fetcher", done) == [m.Published(["a"])]
    assert publisher.outbox == set()
    publisher.live(60)
    assert publisher.patched == []


def test_a_task_that_is_gone_from_the_api_is_settled_too() -> None:
    publisher = Publishing()
    publisher.results("a")
    done = publisher.respond(404, "a")
    assert sent_to("fetcher", done) == [m.Published(["a"])]
    assert "task_gone" in events(done)


def test_settled_results_are_counted_by_type_and_state_with_their_durations() -> None:
    publisher = Publishing()
    publisher.results("a", "b")
    publisher.results("c", failure=m.Failure("invalid_content", "empty"))
    done = publisher.after(2).respond(200, "a", "b", "c")
    assert counted("ai_tasks_processed_total", done) == [
        (("text_embedding", "succeeded"), 2),
        (("text_embedding", "failed"), 1),
    ]
    waited = publisher.now.wall - LEASED_AT
    assert of_type(Observe, done) == [Observe("ai_task_processing_duration_seconds", ("text_embedding",), [waited] * 3)]
    assert "results_accepted" in events(done)


def test_a_duration_is_never_negative_when_the_clock_steps_back() -> None:
    publisher = Publishing()
    publisher.results("a", leased_at=publisher.now.wall + 100)
    (observed,) = of_type(Observe, publisher.respond(200, "a"))
    assert observed.values == [0.0]


def test_acceptances_wait_a_moment_to_share_a_transaction() -> None:
    publisher = Publishing()
    publisher.results("a", "b", "c")
    assert of_type(Settle, publisher.respond(200, "a")) == []
    publisher.after(SETTLE_AFTER_S / 2)
    assert of_type(Settle, publisher.respond(200, "b")) == []
    (settled,) = of_type(Settle, publisher.after(SETTLE_AFTER_S).tick())
    assert settled.record.ids == ["a", "b"]
    assert of_type(Settle, publisher.after(1).tick()) == []


def test_acceptances_that_have_waited_long_enough_are_settled_with_the_next_response() -> None:
    publisher = Publishing()
    publisher.results("a", "b", "c")
    publisher.respond(200, "a")
    (settled,) = of_type(Settle, publisher.after(SETTLE_AFTER_S * 1.1).respond(200, "b"))
    assert settled.record.ids == ["a", "b"]


def test_a_full_batch_of_acceptances_is_settled_at_once() -> None:
    publisher = Publishing()
    ids = names(SETTLE_BATCH + 30)
    publisher.results(*ids)
    settled = []
    for task_id in ids[:SETTLE_BATCH]:
        settled += of_type(Settle, publisher.respond(200, task_id))
    assert [one.record.ids for one in settled] == [ids[:SETTLE_BATCH]]


def test_the_last_acceptances_are_settled_at_once() -> None:
    publisher = Publishing()
    publisher.results("a", "b")
    assert of_type(Settle, publisher.respond(200, "a")) == []
    assert len(of_type(Settle, publisher.respond(200, "b"))) == 1


def test_two_settlements_at_the_same_time_are_two_records() -> None:
    publisher = Publishing()
    publisher.results("a")
    (first,) = of_type(Settle, publisher.respond(200, "a"))
    publisher.results("b")
    (second,) = of_type(Settle, publisher.respond(200, "b"))
    assert first.record.key != second.record.key


# ---- the first result wins ----


def test_a_second_result_is_acknowledged_and_dropped() -> None:
    publisher = Publishing()
    publisher.results("a")
    done = publisher.results("a", reply_to="ipc://embedder_01")
    assert kinds(done) == ["Stored"]
    assert sent_to("ipc://embedder_01", done) == [m.Stored("b1")]


def test_a_result_for_a_settled_task_is_dropped_and_the_fetcher_is_told_again() -> None:
    publisher = Publishing()
    publisher.results("a")
    publisher.respond(200, "a")
    done = publisher.results("a", reply_to="ipc://embedder_01")
    assert kinds(done) == ["Stored", "Published"]
    assert sent_to("fetcher", done) == [m.Published(["a"], [])]
    assert publisher.patched == []


def test_a_result_for_a_dead_letter_is_dropped_and_the_fetcher_is_told_again() -> None:
    publisher = Publishing(dead=["a"])
    done = publisher.results("a", reply_to="ipc://embedder_01")
    assert kinds(done) == ["Stored", "Published"]
    assert sent_to("fetcher", done) == [m.Published([], ["a"])]


def test_only_the_new_results_of_a_batch_are_stored() -> None:
    publisher = Publishing(dead=["dead"])
    publisher.results("settled")
    publisher.respond(200, "settled")
    publisher.results("stored")
    done = publisher.results("dead", "settled", "stored", "new")
    assert [put.result.id for put in of_type(PutResult, done)] == ["new"]
    assert publisher.patched == ["new"]
    assert of_type(m.Holding, done) == [m.Holding("publisher", ["new"])]


def test_a_task_that_was_queued_again_on_purpose_is_published_again() -> None:
    publisher = Publishing()
    publisher.results("a")
    publisher.respond(200, "a")
    done = publisher.after(70).results("a", leased_at=publisher.now.wall + 65)
    assert len(of_type(PutResult, done)) == 1
    assert publisher.patched == ["a"]


def test_settled_tasks_are_still_known_after_a_restart() -> None:
    publisher = Publishing()
    publisher.state.settled.restore([Record(publisher.now.wall, ["a"])])
    assert of_type(PutResult, publisher.results("a")) == []


def test_settled_tasks_are_forgotten_in_memory_and_on_disk_after_two_minutes() -> None:
    publisher = Publishing()
    publisher.results("a")
    (settled,) = of_type(Settle, publisher.respond(200, "a"))
    assert of_type(DeleteSettled, publisher.after(SETTLED_KEPT_S).tick()) == []
    assert of_type(DeleteSettled, publisher.after(BUCKET_S).tick()) == [DeleteSettled(settled.record.key)]
    assert len(of_type(PutResult, publisher.results("a"))) == 1


# ---- what is held ----


def test_holding_is_sent_at_once_for_new_results_and_every_third_of_a_lease_for_all() -> None:
    publisher = Publishing(stored=["a"], dead=["d"], lease_seconds=15.0)
    assert sent_to("fetcher", publisher.results("b")) == [m.Holding("publisher", ["b"])]
    assert of_type(m.Holding, publisher.live(4.9)) == []
    assert of_type(m.Holding, publisher.after(0.11).tick()) == [m.Holding("publisher", ["a", "b"], [], ["d"])]
    assert len(of_type(m.Holding, publisher.live(15))) == 3


def test_holding_is_sent_even_when_the_outbox_is_empty() -> None:
    assert m.Holding("publisher", [], [], []) in of_type(m.Holding, Publishing().live(5.1))


# ---- the end ----


def test_a_draining_publisher_starts_no_patch_and_settles_what_was_accepted() -> None:
    publisher = Publishing()
    publisher.results("a", "b")
    publisher.respond(200, "a")
    done = publisher.did(publisher.state.on_drain(publisher.now))
    assert [settled.record.ids for settled in of_type(Settle, done)] == [["a"]]
    publisher.results("c")
    assert publisher.patched == []
    publisher.live(5)
    assert publisher.patched == []
    assert publisher.outbox == {"b", "c"}


def test_a_draining_publisher_without_acceptances_settles_nothing() -> None:
    publisher = Publishing(stored=["a"])
    assert list(publisher.state.on_drain(publisher.now)) == []


def test_a_publisher_is_drained_when_no_patch_is_under_way() -> None:
    publisher = Publishing()
    publisher.results("a")
    assert not publisher.state.is_drained(publisher.after(60).now)
    list(publisher.state.on_drain(publisher.now))
    publisher.after(DRAIN_AT_LEAST_S)
    assert not publisher.state.is_drained(publisher.now)
    publisher.respond(200, "a")
    assert publisher.state.is_drained(publisher.now)


def test_a_publisher_is_not_drained_before_embedders_had_time_to_announce_their_drain() -> None:
    publisher = Publishing()
    list(publisher.state.on_drain(publisher.now))
    assert not publisher.state.is_drained(publisher.after(DRAIN_AT_LEAST_S - 0.1).now)
    assert publisher.state.is_drained(publisher.after(0.1).now)


def test_a_publisher_is_not_drained_while_an_acceptance_is_not_settled() -> None:
    publisher = Publishing()
    publisher.results("a", "b")
    list(publisher.state.on_drain(publisher.now))
    publisher.after(2).respond(200, "a")
    assert not publisher.state.is_drained(publisher.now)
    publisher.respond(503, "b")
    publisher.live(0.2)
    assert publisher.state.is_drained(publisher.now)


def test_the_report_has_the_sizes_and_what_blocks_the_publisher() -> None:
    publisher = Publishing(stored=["a", "b"], dead=["d"], token=False, breaker_threshold=1)
    report = publisher.state.report(publisher.now)
    assert report.facts == {"outbox": 2, "dead_letters": 1, "connections": 0, "connections_limit": CONNECTIONS}
    assert report.blockers == ["no access token yet"]
    publisher.token("one")
    assert publisher.state.report(publisher.now).blockers == []
    publisher.respond(503, "a")
    assert publisher.state.report(publisher.now).blockers == ["the API does not take results: PATCH answered 503"]


def test_a_patch_action_has_the_task_id_and_the_token() -> None:
    (patch,) = of_type(SendPatch, Publishing().results("a"))
    assert patch.task_id == "a"
    assert patch.token.fingerprint == "one"


def draining(publisher: Publishing, embedder: str, *, done: bool = False) -> None:
    publisher.did(publisher.state.on_draining(m.Draining(embedder, "boot", done), publisher.now))


def test_a_draining_publisher_waits_for_embedders_that_are_draining() -> None:
    publisher = Publishing()
    draining(publisher, "embedder_00")
    draining(publisher, "embedder_01")
    publisher.did(publisher.state.on_drain(publisher.now))
    publisher.after(DRAIN_AT_LEAST_S)
    assert not publisher.state.is_drained(publisher.now)
    draining(publisher, "embedder_00", done=True)
    assert not publisher.state.is_drained(publisher.now)
    draining(publisher, "embedder_01", done=True)
    assert publisher.state.is_drained(publisher.now)


def test_a_draining_publisher_does_not_wait_for_an_embedder_that_was_killed() -> None:
    publisher = Publishing()
    publisher.did(publisher.state.on_drain(publisher.now))
    draining(publisher, "embedder_00")
    assert not publisher.state.is_drained(publisher.after(DRAINING_SILENT_AFTER_S - 0.1).now)
    draining(publisher, "embedder_00")
    assert not publisher.state.is_drained(publisher.after(DRAINING_SILENT_AFTER_S - 0.1).now)
    assert publisher.state.is_drained(publisher.after(0.2).now)
