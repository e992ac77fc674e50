"""What the monitor concludes from heartbeats, without a socket or a clock."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from common.wire.parts import QuotaWindow
from common.wire.timing import DEAD_AFTER_S
from stages.monitor.actions import AskExpected, ExpectedInstances, PublishView
from stages.monitor.state import EARLIER_BOOTS, QUESTION_INTERVAL_S, Monitor
from stages.monitor.view import View
from tests.monitor.beats import ALL, START, beat, counter, gauge, later, values


def monitor(*alive: str) -> Monitor:
    made = Monitor(ALL, START)
    for instance in alive:
        made.on_heartbeat(beat(instance), START)
    return made


# Alive or not


def test_a_service_is_healthy_when_all_processes_are_alive() -> None:
    assert monitor(*ALL).view.missing(later(DEAD_AFTER_S)) == []


def test_missing_names_the_processes_whose_first_heartbeat_has_not_come() -> None:
    view = monitor("fetcher", "token_broker", "rate_limiter", "monitor").view
    assert view.missing(later(DEAD_AFTER_S)) == [
        "waiting for the first heartbeat of embedder_00",
        "waiting for the first heartbeat of publisher",
    ]
    assert [reason for reason in view.missing(later(5.6)) if "dead" not in reason] == [
        "embedder_00 has sent no heartbeat in the 6 s since the monitor started; is it running?",
        "publisher has sent no heartbeat in the 6 s since the monitor started; is it running?",
    ]


def test_a_silent_process_is_dead_until_its_next_heartbeat() -> None:
    made = monitor(*ALL)
    now = later(DEAD_AFTER_S + 0.1)
    for instance in ALL[1:]:
        made.on_heartbeat(beat(instance), now)
    assert made.view.missing(now) == [
        "fetcher is dead: no heartbeat for 5 s; see `supervisorctl status` and its log"
    ]  # fmt: skip
    assert made.view.alive("fetcher", now) is False
    made.on_heartbeat(beat("fetcher"), now)
    assert made.view.missing(now) == []


def test_the_age_is_the_time_since_the_last_heartbeat() -> None:
    made = monitor("fetcher")
    made.on_heartbeat(beat("fetcher"), later(2))
    assert made.view.age_s("fetcher", later(3)) == 1
    assert made.view.age_s("publisher", later(3)) is None


def test_an_additional_embedder_is_shown_and_may_disappear() -> None:
    made = monitor(*ALL, "embedder_07")
    assert "embedder_07" in made.view.seen
    for instance in ALL:
        made.on_heartbeat(beat(instance), later(60))
    assert made.view.missing(later(60)) == []


def test_each_heartbeat_publishes_an_immutable_view() -> None:
    made = Monitor(ALL, START)
    (published,) = made.on_heartbeat(beat("fetcher"), START)
    assert published == PublishView(made.view)
    assert isinstance(published.view, View)
    made.on_heartbeat(beat("publisher"), START)
    assert list(published.view.seen) == ["fetcher"]
    assert list(made.view.seen) == ["fetcher", "publisher"]


# Ready or not


def test_there_is_no_obstacle_when_all_are_alive_and_none_is_blocked() -> None:
    assert monitor(*ALL).view.obstacles(later(1)) == []


def test_every_blocker_is_an_obstacle_with_the_name_of_its_process() -> None:
    made = monitor(*ALL)
    made.on_heartbeat(beat("token_broker", blockers=["no access token"]), START)
    made.on_heartbeat(beat("fetcher", blockers=["no token", "the API is down"]), START)
    assert made.view.obstacles(START) == [
        "fetcher: no token",
        "fetcher: the API is down",
        "token_broker: no access token",
    ]


def test_a_dead_process_is_an_obstacle_and_its_blockers_are_not() -> None:
    made = monitor(*ALL)
    made.on_heartbeat(beat("fetcher", blockers=["no token"]), START)
    for instance in ALL[1:]:
        made.on_heartbeat(beat(instance), later(9))
    assert [reason.split(":")[0] for reason in made.view.obstacles(later(9))] == ["fetcher is dead"]


def test_one_ready_embedder_is_enough() -> None:
    made = monitor(*ALL, "embedder_01")
    made.on_heartbeat(beat("embedder_00", blockers=["the model is missing"]), START)
    assert made.view.obstacles(START) == []
    made.on_heartbeat(beat("embedder_01", blockers=["the provider is down"]), START)
    assert made.view.obstacles(START) == ["embedder_00: the model is missing", "embedder_01: the provider is down"]


def test_a_dead_embedder_does_not_replace_a_blocked_one() -> None:
    made = monitor(*ALL, "embedder_01")
    for instance in ALL:
        made.on_heartbeat(beat(instance, blockers=["x"] if instance == "embedder_00" else []), later(9))
    assert made.view.obstacles(later(9)) == ["embedder_00: x"]


# Metrics and windows


def test_counters_are_summed_over_restarts_and_processes() -> None:
    made = monitor()
    made.on_heartbeat(beat("fetcher", "one", metrics=[counter("done", 5)]), START)
    made.on_heartbeat(beat("fetcher", "one", metrics=[counter("done", 7)]), START)
    made.on_heartbeat(beat("publisher", "x", metrics=[counter("done", 100)]), START)
    made.on_heartbeat(beat("fetcher", "two", metrics=[counter("done", 1)]), START)
    made.on_heartbeat(beat("fetcher", "three", metrics=[counter("done", 2)]), START)
    assert values(made.view.families([], START)) == {"done_total": 7 + 100 + 1 + 2}
    assert made.view.seen["fetcher"].restarts == 2


def test_a_late_heartbeat_of_an_earlier_boot_does_not_count_as_a_restart() -> None:
    made = monitor()
    for boot in ("one", "two"):
        made.on_heartbeat(beat("fetcher", boot, metrics=[counter("done", 5)]), START)
    assert made.on_heartbeat(beat("fetcher", "one", metrics=[counter("done", 5)]), later(1)) == []
    assert made.view.seen["fetcher"].beat.boot_id == "two"
    made.on_heartbeat(beat("fetcher", "two", metrics=[counter("done", 6)]), later(1))
    assert made.on_heartbeat(beat("fetcher", "one"), later(1)) == []
    assert values(made.view.families([], START)) == {"done_total": 11}


def test_a_crash_loop_uses_a_bounded_amount_of_memory() -> None:
    made = monitor()
    for boot in range(3 * EARLIER_BOOTS):
        made.on_heartbeat(beat("fetcher", str(boot), metrics=[counter("done", 1)]), START)
    assert len(made.view.seen["fetcher"].earlier) == EARLIER_BOOTS
    assert made.view.seen["fetcher"].earlier[-1] == str(3 * EARLIER_BOOTS - 2)
    assert values(made.view.families([], START)) == {"done_total": 3 * EARLIER_BOOTS}


def test_the_gauges_of_a_dead_process_are_not_shown() -> None:
    made = monitor()
    made.on_heartbeat(beat("fetcher", metrics=[gauge("memory", 5), counter("done", 1)]), START)
    assert values(made.view.families([], later(1))) == {"memory": 5, "done_total": 1}
    assert values(made.view.families([], later(9))) == {"done_total": 1}


def test_the_metrics_of_the_catalogue_are_shown_without_samples() -> None:
    catalogue = [counter("done", 0), counter("failed", 0)]
    for family in catalogue:
        family.samples.clear()
    made = monitor()
    made.on_heartbeat(beat("fetcher", metrics=[counter("other", 1), counter("failed", 2)]), START)
    assert [(f.name, len(f.samples)) for f in made.view.families(catalogue, START)] == [
        ("done", 0),
        ("failed", 1),
        ("other", 1),
    ]


def test_the_quota_windows_are_those_of_the_rate_limiter() -> None:
    window = QuotaWindow("", "tasks", "minute", 1, 10, 9, START.wall + 60)
    made = monitor()
    assert made.view.windows() == []
    made.on_heartbeat(beat("rate_limiter", windows=[window]), START)
    made.on_heartbeat(beat("fetcher"), START)
    assert made.view.windows() == [window]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(ALL), st.integers(0, 9), st.booleans()), max_size=60))
def test_the_sum_of_a_counter_is_right_after_any_restarts(history: list[tuple[str, int, bool]]) -> None:
    made = monitor()
    counts: dict[str, list[int]] = {}
    for instance, increment, restarts in history:
        boots = counts.setdefault(instance, [0])
        if restarts:
            boots.append(0)
        boots[-1] += increment
        made.on_heartbeat(beat(instance, str(len(boots)), metrics=[counter("done", boots[-1])]), START)
        total = sum(sum(boots) for boots in counts.values())
        assert values(made.view.families([], START)) == {"done_total": total}


# Which instances are expected


def test_while_an_instance_is_not_alive_the_monitor_asks_whether_it_is_still_expected() -> None:
    state = monitor(*(instance for instance in ALL if instance != "embedder_00"))
    assert state.on_tick(later(QUESTION_INTERVAL_S - 0.1)) == []
    assert state.on_tick(later(QUESTION_INTERVAL_S)) == [AskExpected()]
    assert state.on_tick(later(QUESTION_INTERVAL_S + 0.1)) == []
    fewer = [instance for instance in ALL if instance != "embedder_00"]
    assert state.on_expected(ExpectedInstances(fewer), later(5.0)) == [PublishView(state.view)]
    assert state.view.missing(later(5.0)) == []
    assert state.on_expected(ExpectedInstances(fewer), later(5.0)) == []


def test_while_all_instances_are_alive_the_monitor_asks_nothing() -> None:
    state = monitor(*ALL)
    assert state.on_tick(later(DEAD_AFTER_S)) == []


def test_an_embedder_that_is_not_expected_makes_the_monitor_ask_whether_it_is_now() -> None:
    state = monitor(*ALL, "embedder_01")
    for instance in (*ALL, "embedder_01"):
        state.on_heartbeat(beat(instance), later(QUESTION_INTERVAL_S))
    assert state.on_tick(later(QUESTION_INTERVAL_S)) == [AskExpected()]
    state.on_expected(ExpectedInstances([*ALL, "embedder_01"]), later(5.0))
    assert state.on_tick(later(2 * QUESTION_INTERVAL_S)) == []
    dead = later(QUESTION_INTERVAL_S + DEAD_AFTER_S + 1)
    assert any("embedder_01" in reason for reason in state.view.missing(dead))


def test_an_embedder_that_is_not_expected_any_more_is_shown_until_it_ends() -> None:
    state = monitor(*ALL, "embedder_01")
    assert "embedder_01" in state.view.shown(START)
    assert state.view.shown(later(DEAD_AFTER_S + 1)) == sorted(ALL)
