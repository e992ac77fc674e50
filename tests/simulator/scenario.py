"""A scenario: a list of faults at their times, its run on the simulated machine, and the promises checked at its end.

All other randomness of a run comes from the seed of the scenario.
"""

from __future__ import annotations

import itertools
import logging
import random
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from common.process import clock
from common.wire import messages as m
from stages.embedder.providers import sending
from stages.fetcher.lease_table import LEASED, Whereabouts
from stages.rate_limiter.quota.buckets import Period
from stages.rate_limiter.quota.counters import Unit, WindowId
from tests.rate_limiter.test_quota_invariant import most_within
from tests.simulator.broker import BrokerProcess, TokenEndpoint
from tests.simulator.embedder import EmbedderProcess
from tests.simulator.outside import Api, ApiTask
from tests.simulator.provider import Limits, Provider
from tests.simulator.service import FAIL, MAX_DISPATCHES, FetcherProcess, LimiterProcess, PublisherProcess
from tests.simulator.world import World

EMBEDDERS = ("embedder_00", "embedder_01")
STAGES = ("fetcher", "rate_limiter", *EMBEDDERS, "publisher", "token_broker")
FAULTS_END_S = 40.0
"""No fault begins after this time."""
NEXT_TASK_S = 20.0
"""A task is queued this often while a poison or refused task is pending: what becomes of it is the evidence."""
EVIDENCE = frozenset({"bad", "poison", "refused", "unreadable", "crashing"})
"""The natures of tasks that end only when it is seen what becomes of others."""
BAD_BESIDE = ("bad", "unreadable", "crashing", "invalid", "refused")
GOOD_BESIDE = 12
READY_WITHIN_S = 130.0
"""The service is ready this long after the last fault: the longest wait between two probes is a minute."""
WAIT_S = 20.0
"""Good tasks that are queued together with bad ones are accepted within this time: a poll, and one probe."""
QUIET_WITHIN_S = 700.0
"""All tasks must have ended this long after the faults: back-offs, cooldowns and expired leases included."""


class Fault(NamedTuple):
    """Something that fails for a while."""

    at: float
    """Simulated seconds."""
    kind: str
    target: str
    """The name of a process."""
    seconds: float
    """Duration, or the time until a killed process starts again."""


@dataclass
class Scenario:
    """The parameters of one run."""

    seed: int
    tasks: int
    max_in_flight: int
    cap: int | None
    obeys_limit: bool
    per_minute: int
    natures: list[str]
    faults: list[Fault]
    requests_per_minute: int = 0
    connections: int = 16


class Run:
    """One run of a scenario, with all processes and external services."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = world = World(scenario.seed)
        self.tokens = TokenEndpoint(world)
        self.api = api = Api(world, self.tokens, cap=scenario.cap, obeys_limit=scenario.obeys_limit)
        limits = Limits(scenario.per_minute, scenario.requests_per_minute)
        self.provider = Provider(world, limits)
        quota = {
            WindowId(Unit.TASKS, Period.MINUTE): limits.tasks,
            WindowId(Unit.REQUESTS, Period.MINUTE): limits.requests,
        }
        self.broker = BrokerProcess(world, self.tokens)
        self.fetcher = FetcherProcess(world, api, scenario.max_in_flight)
        self.limiter = LimiterProcess(world, quota)
        self.embedders = [EmbedderProcess(world, name, self.provider, api) for name in EMBEDDERS]
        self.publisher = PublisherProcess(world, api, scenario.connections)
        for nature in scenario.natures:
            api.create(1, "small", nature)
        for key, share in (("small", 0.5), ("large", 0.3)):
            api.create(int(scenario.tasks * share), key)
        world.later(10.0, lambda: api.create(scenario.tasks - len(api.tasks), "small"))
        for process in world.processes.values():
            world.later(world.random.uniform(0.0, 0.5), process.start)
        for fault in scenario.faults:
            world.later(fault.at, lambda fault=fault: self.begin_fault(fault))  # type: ignore[misc]

    def begin_fault(self, fault: Fault) -> None:
        self.world.injected[fault.kind] += 1
        self.world.tell("fault", f"{fault.kind} {fault.target} {fault.seconds:g} s")
        process = self.world.processes[fault.target]
        match fault.kind:
            case "kill":
                process.kill(fault.seconds)
            case "kill before commit" | "kill after commit":
                process.dies = fault.kind.split()[1]
                process.back_after = fault.seconds
            case "stop":
                process.stop(fault.seconds)
            case "terminate":
                process.terminate()
            case "crash loop":
                (embedder,) = [embedder for embedder in self.embedders if embedder.name == fault.target]
                embedder.crash_loops_until = self.world.now + fault.seconds
            case _:
                self.begin_fault_outside(fault)

    def begin_fault_outside(self, fault: Fault) -> None:
        match fault.kind:
            case "down" | "lossy" | "refusing":
                self.api.mode = fault.kind
                self.world.later(fault.seconds, lambda: setattr(self.api, "mode", "normal"))
            case "new token":
                self.tokens.revoke()
            case "delete":
                self.api.delete()
            case "tokens refused":
                self.api.tokens_refused = True
                self.world.later(fault.seconds, lambda: setattr(self.api, "tokens_refused", False))
            case "model refused":
                self.provider.refused_model = "large"
                self.world.later(fault.seconds, lambda: setattr(self.provider, "refused_model", ""))
            case "lose" | "repeat" | "reorder" | "delay":
                self.world.disturbance = fault.kind
                self.world.later(fault.seconds, lambda: setattr(self.world, "disturbance", ""))
            case "clock ahead" | "clock back":
                self.world.wall_step_s += fault.seconds * (1 if fault.kind == "clock ahead" else -1)
            case _:
                of, _, mode = fault.kind.rpartition(" ")
                services: dict[str, Provider | TokenEndpoint] = {
                    "provider": self.provider, "token endpoint": self.tokens,
                }  # fmt: skip
                self.set_mode(services[of], mode, fault.seconds)

    def set_mode(self, service: Provider | TokenEndpoint, mode: str, seconds: float) -> None:
        """Let a service fail for a while."""
        service.mode = mode
        self.world.later(seconds, lambda: setattr(service, "mode", "normal"))

    def run(self) -> None:
        self.world.run(FAULTS_END_S + 30.0)  # the longest fault is over by then
        self.queue_more()
        self.world.run(FAULTS_END_S + QUIET_WITHIN_S, self.is_finished)
        assert self.is_finished(), f"not finished: {self.unfinished()}"
        self.queue_beside_bad_ones()
        self.replay()

    def queue_beside_bad_ones(self) -> None:
        """When all is over: good tasks do not wait for bad ones."""
        if self.scenario.per_minute or self.scenario.requests_per_minute:
            return
        if self.scenario.cap and self.publisher.dead:
            return  # dead letters stay pending: a page that the API caps shows them instead of others
        self.world.run(self.world.now + READY_WITHIN_S, lambda: not self.blockers())
        assert not self.blockers(), f"not ready: {self.blockers()}"
        self.provider.is_quick = True
        before = set(self.api.tasks)
        for nature in BAD_BESIDE:
            self.api.create(2 * self.scenario.natures.count(nature), "small", nature)
        self.api.create(GOOD_BESIDE, "small")
        good = [task for task in self.api.tasks.values() if task.nature == "good" and task.id not in before]
        self.world.run(self.world.now + WAIT_S, lambda: all(task.accepted for task in good))
        late = [task.id for task in good if not task.accepted]
        assert not late, f"{late} wait for bad ones after {WAIT_S:g} s"
        self.queue_more()
        self.world.run(self.world.now + QUIET_WITHIN_S, self.is_finished)
        assert self.is_finished(), f"not finished: {self.unfinished()}"

    def blockers(self) -> list[str]:
        """Why the service is not ready, in its own words."""
        now = self.world.instant
        states = (self.fetcher.state, self.limiter.state, self.publisher.state, self.broker.state)
        found = [reason for state in states for reason in state.report(now).blockers]
        return found + [reason for embedder in self.embedders for reason in embedder.engine.blockers()]

    def queue_more(self) -> None:
        """Queue another task from time to time."""
        waiting = (task.id for task in self.api.tasks.values() if task.pending and task.nature in EVIDENCE)
        if set(waiting) - set(self.publisher.dead):
            self.api.create(1, "small")
            self.world.later(NEXT_TASK_S, self.queue_more)

    def replay(self) -> None:
        """An operator replays the dead letters once the API accepts them again."""
        self.api.takes_refused = True
        if self.publisher.state.dead:
            letters = m.DeadLetters(list(self.publisher.state.dead))
            self.publisher.receive(letters, self.publisher.life)
            self.world.run(self.world.now + 100.0, lambda: self.is_finished() and not self.publisher.dead)
            assert not self.publisher.dead
            self.world.run(self.world.now + 7.0)

    def unfinished(self) -> dict[str, object]:
        """Everything that is not finished yet."""
        dead = set(self.publisher.dead)
        every = {
            "pending": [
                t.id for t in self.api.tasks.values() if t.pending and t.nature != "foreign" and t.id not in dead
            ],
            "dead processes": [] if all(process.alive for process in self.world.processes.values()) else ["a process"],
            "leases": sorted(self.fetcher.state.table.ids(*LEASED)),
            "limiter": list(self.limiter.state.owned),
            "slots": [list(embedder.state.slots) for embedder in self.embedders if embedder.state.slots],
            "outbox": list(self.publisher.state.entries),
        }
        return {name: what for name, what in every.items() if what}

    def is_finished(self) -> bool:
        return not self.unfinished()

    # ---- what must be true at the end ----

    def check(self) -> None:
        for task in self.api.tasks.values():
            self.check_end(task)
            self.check_acceptances(task)
            self.check_payments(task)
        charges = sorted(self.limiter.charges.items())
        if self.scenario.per_minute:
            assert most_within(charges, 60) <= self.scenario.per_minute, "more than the limit in a minute"
        assert set(self.fetcher.leases) <= self.fetcher.state.table.ids(Whereabouts.LOST)
        assert self.fetcher.dead == set()

    def check_end(self, task: ApiTask) -> None:
        """No task is lost, and none has failed without a reason."""
        expected = {
            "good": {"succeeded"},
            **{nature: {"failed"} for nature in FAIL},
            "gone": {"succeeded", "deleted"},
            "refused": {"succeeded"},
            "foreign": {"pending"},
        }
        if task.nature in {"good", "gone", "refused"} and task.state == "failed":
            assert self.losses(task.id) >= MAX_DISPATCHES, f"{task.id} has failed without a reason"
        else:
            assert task.state in expected[task.nature], f"{task.id} is {task.state}"

    def check_acceptances(self, task: ApiTask) -> None:
        """Accepted once, unless the publisher died between acceptance and commit; then with the same bytes."""
        if task.nature != "foreign" and task.state != "deleted":
            assert task.accepted
        assert len({accepted.body for accepted in task.accepted}) <= 1, f"{task.id} has two different results"
        for first, second in itertools.pairwise(task.accepted):
            died = any(first.at - 1.0 < death < second.at for death in self.publisher.deaths)
            assert first.status != 200 or died, f"{task.id} was accepted twice without a reason"

    def check_payments(self, task: ApiTask) -> None:
        """Paid once, unless an embedder had the task when it died or was silent for so long that it counted as dead."""
        paid = self.provider.paid.get(task.id, 0)
        lost = sum(embedder.lost.get(task.id, 0) for embedder in self.embedders)
        excused = self.provider.excused.get(task.id, 0)
        assert paid <= 1 + lost + excused, (
            f"{task.id} was paid {paid} times, lost {lost} times, unusable {excused} times"
        )
        if task.nature in {"invalid", "foreign", "poison"}:
            assert paid == 0

    def losses(self, task_id: str) -> int:
        lost = sum(embedder.lost.get(task_id, 0) for embedder in self.embedders)
        return lost + self.fetcher.expired.get(task_id, 0)


def run_scenario(scenario: Scenario, story: list[str] | None = None) -> Run:
    """Run a scenario to its end and check the promises; its seed also determines the jitter of back-offs.

    If `story` is given, the run tells what happens, line by line.
    """
    before, monotonic = random.getstate(), clock.monotonic
    random.seed(scenario.seed)
    run = Run(scenario)
    run.world.story = story
    setattr(sending, "monotonic", lambda: run.world.now)  # noqa: B010  the only clock that is not a parameter
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        run.run()
        run.check()
        return run
    finally:
        for embedder in run.embedders:
            embedder.end_threads()
        random.setstate(before)
        setattr(sending, "monotonic", monotonic)  # noqa: B010
        structlog.reset_defaults()
