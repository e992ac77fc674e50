"""Decisions of the rate limiter's parts at the exact moment when a time is over."""

from __future__ import annotations

import pytest

from common.process.actions import Instant
from common.wire import messages as m
from common.wire.timing import MISSING_AFTER_S, QUARANTINE_TRUSTED_S, SILENT_AFTER_S
from stages.rate_limiter.cooldowns import SAVE_REQUESTS_S, CooldownBoard
from stages.rate_limiter.fleet import DispatchedBatch, EmbedderEntry, Fleet
from stages.rate_limiter.poison import Quarantine
from tests.samples import task


def at(mono: float) -> Instant:
    return Instant(mono, 1_000_000.0 + mono)


def test_a_cooldown_is_over_at_its_end_and_requests_are_saved_for_a_while_after_it() -> None:
    board = CooldownBoard()
    assert board.report({"openai": 100.0}) == {"openai": 100.0}
    assert board.in_force(99.9) == {"openai": 100.0}
    assert board.in_force(100.0) == {}
    assert board.saves_requests(100.0 + SAVE_REQUESTS_S - 0.1)
    assert not board.saves_requests(100.0 + SAVE_REQUESTS_S)


@pytest.mark.parametrize("heard_at_s", [1.0, 10.0, 999.5])
def test_an_embedder_is_silent_when_its_last_ready_is_too_old_whatever_the_clock_shows(heard_at_s: float) -> None:
    fleet = Fleet()
    fleet.add(m.Ready("e0", "boot", "ipc://e0", 1, []), at(heard_at_s))
    assert fleet.silent(at(heard_at_s + SILENT_AFTER_S)) == []
    for age_s in (SILENT_AFTER_S + 0.1, 2 * SILENT_AFTER_S, heard_at_s * SILENT_AFTER_S + SILENT_AFTER_S):
        assert [entry.name for entry in fleet.silent(at(heard_at_s + age_s))] == ["e0"]


@pytest.mark.parametrize("heard_at_s", [1.0, 10.0, 2000.0])
@pytest.mark.parametrize(("pause_s", "is_lost"), [(SILENT_AFTER_S / 2, True), (SILENT_AFTER_S / 2 + 0.5, False)])
def test_a_batch_that_was_missed_before_a_pause_is_not_lost_after_it(
    heard_at_s: float, pause_s: float, *, is_lost: bool
) -> None:
    entry = EmbedderEntry("e0", "boot", "ipc://e0", heard_at_s)
    entry.batches["b1"] = DispatchedBatch(["a"], missed_at=heard_at_s + pause_s - MISSING_AFTER_S)
    changes = entry.on_ready(m.Ready("e0", "boot", "ipc://e0", 1, []), at(heard_at_s + pause_s))
    assert ("b1" in changes.lost) is is_lost


def test_a_task_is_outdated_only_after_the_time_for_which_the_publisher_remembers_it() -> None:
    quarantine = Quarantine(5)
    quarantine.on_death("e0", [task("a")], at(10.0))
    assert quarantine.outdated(at(10.0 + QUARANTINE_TRUSTED_S)) == set()
    assert quarantine.outdated(at(10.1 + QUARANTINE_TRUSTED_S)) == {"a"}


def test_a_new_task_in_a_long_row_of_deaths_has_one_more_attempt_afterwards() -> None:
    quarantine = Quarantine(5)
    attempts = []
    for number in range(12):
        ((retried,), _) = quarantine.on_death("e0", [task(f"t{number}")], at(float(number)))
        attempts.append(retried.attempt)
    assert attempts == [2] * 12


def test_a_long_row_of_deaths_makes_earlier_evidence_void() -> None:
    quarantine = Quarantine(5)
    quarantine.on_death("e0", [task("a", attempt=4)], at(1.0))
    quarantine.on_finished("e0", ["other"])
    quarantine.on_death("e0", [task("a", attempt=4)], at(2.0))
    for number in range(10):
        quarantine.on_death("e1", [task(f"t{number}")], at(3.0 + number))
    quarantine.on_finished("e1", [f"t{number}" for number in range(10)])
    (retried, poison_ids) = quarantine.on_death("e0", [task("a", attempt=5)], at(20.0))
    assert ([one.id for one in retried], poison_ids) == (["a"], [])


def test_evidence_counts_if_no_long_row_of_deaths_came_after_it() -> None:
    quarantine = Quarantine(5)
    quarantine.on_death("e0", [task("a", attempt=4)], at(1.0))
    quarantine.on_finished("e0", ["other"])
    quarantine.on_death("e0", [task("a", attempt=4)], at(2.0))
    assert quarantine.on_death("e0", [task("a", attempt=5)], at(3.0)).poison_ids == ["a"]


def ready(free: int, *held: str, boot: str = "boot") -> m.Ready:
    return m.Ready("e0", boot, "ipc://e0", free, [m.HeldBatch(name, "small", ["a"]) for name in held])


@pytest.mark.parametrize(("free", "in_transit", "left"), [(5, 1, 4), (5, 2, 3), (1, 1, 0), (1, 3, 0), (0, 0, 0)])
def test_batches_in_transit_take_slots_that_an_embedder_reports_as_free(free: int, in_transit: int, left: int) -> None:
    entry = EmbedderEntry("e0", "boot", "ipc://e0", 10.0)
    entry.batches = {f"b{number}": DispatchedBatch([f"t{number}"]) for number in range(in_transit)}
    entry.on_ready(ready(free), at(10.1))
    assert entry.free == left
    assert entry.takes("small", 0.0) is (left > 0)


def test_an_embedder_that_may_have_unread_batches_takes_no_other_until_exactly_then() -> None:
    entry = EmbedderEntry("e0", "boot", "ipc://e0", 10.0, busy_until=11.0)
    for now, free in ((10.9, 0), (11.0, 4), (11.1, 4)):
        entry.on_ready(ready(4), at(now))
        assert entry.free == free


def test_a_batch_is_lost_when_it_was_missed_for_long_enough() -> None:
    for age_s, is_lost in ((MISSING_AFTER_S - 0.1, False), (MISSING_AFTER_S, True), (MISSING_AFTER_S + 0.3, True)):
        entry = EmbedderEntry("e0", "boot", "ipc://e0", 9.9 + age_s)
        entry.batches["b1"] = DispatchedBatch(["a"], missed_at=10.0)
        assert ("b1" in entry.on_ready(ready(1), at(10.0 + age_s)).lost) is is_lost


def test_only_the_same_boot_is_the_same_process() -> None:
    fleet = Fleet()
    entry = fleet.add(ready(1, boot="m"), at(1.0))
    assert fleet.with_boot("e0", "".join(["", "m"])) is entry
    assert [fleet.with_boot("e0", other) for other in ("a", "z", "")] == [None] * 3
    assert fleet.with_boot("e1", "m") is None


@pytest.mark.parametrize(("gap_s", "heard_at_s"), [(0.5, 10.5), (3.0, 13.0), (9.0, 15.0)])
def test_a_pause_of_this_process_is_not_counted_as_silence(gap_s: float, heard_at_s: float) -> None:
    fleet = Fleet()
    entry = fleet.add(ready(1), at(10.0))
    fleet.excuse(gap_s, at(15.0))
    assert entry.heard_at == heard_at_s


def test_only_batches_that_were_charged_are_unsettled() -> None:
    fleet = Fleet()
    entry = fleet.add(ready(1), at(1.0))
    entry.batches["b1"] = DispatchedBatch(["a"], key="small")
    assert not fleet.has_unsettled("small")
    assert not fleet.has_unsettled("*")
    entry.batches["b2"] = DispatchedBatch(["b"], key="large", charge=m.Charge(1.0, 1, 1))
    assert not fleet.has_unsettled("small")
    assert fleet.has_unsettled("large")
    assert fleet.has_unsettled("*")


def test_a_cooldown_of_an_embedder_ends_exactly_then() -> None:
    entry = EmbedderEntry("e0", "boot", "ipc://e0", 1.0, free=1, key_cooldowns={"small": 50.0, "*": 40.0})
    assert [entry.takes("small", wall) for wall in (49.9, 50.0)] == [False, True]
    assert [entry.takes("large", wall) for wall in (39.9, 40.0)] == [False, True]
