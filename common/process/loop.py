"""The event loop of every process: wake up, let the state decide, commit, then send.

One turn of the loop:

1. Wait for a message in the inbox, a watched file descriptor, an event from a thread, or the next tick.
2. Call the handler of each message and event. Handlers return actions.
3. Perform the actions that write, and commit them in one transaction.
4. Perform the other actions: sends, HTTP requests, provider calls. Nothing leaves the process before the commit.

With `Plan.commits_beside` a thread commits, and the actions of a turn follow when its writes are on disk (`committer`).
Meanwhile only `Plan.free_effects` are performed, which depend on no write that is under way.

A slow call runs elsewhere, and its outcome comes back as an event through `post`. So no handler and no action waits.
SIGTERM makes the stage drain: the loop continues until `Plan.drained` returns True.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
import zmq

from common.failures.breaker import Breaker
from common.failures.errors import Fatal
from common.process import breaker_report, clock, metrics, zero_series
from common.process.actions import Actions, AfterCommit, Count, Instant, Log, Observe, Report, Send
from common.process.committer import Committed, Committer
from common.process.store import Store
from common.supervisor_watch import ORPHAN_ENDS_S, SupervisorWatch
from common.wire.messages import Heartbeat, decode
from common.wire.sockets import Sockets
from common.wire.timing import HEARTBEAT_INTERVAL_S, TICK_S
from common.wire.wiring import SENDERS, Wiring, stage_of

FRAMES_PER_TURN = 64
"""At most this many messages are handled in one turn, so that a full inbox cannot delay ticks and events."""


def _no_actions(_: Instant) -> Actions:
    return ()


Handlers = Mapping[type, Callable[[Any, Instant], Actions]]
"""Message or event → the state's handler, which returns actions."""


@dataclass
class Plan:
    """The parts of one stage: the handlers of its state, and the edges that perform its actions."""

    handlers: Handlers
    """Type of a message or event → the handler that returns actions."""
    writes: Mapping[type, Callable[[Any], None]] = field(default_factory=dict)
    """Type of an action that writes → the function that adds it to this turn's transaction."""
    effects: Mapping[type, Callable[[Any], None]] = field(default_factory=dict)
    """Type of any other action → the function that performs it after the commit."""
    store: Store | None = None
    """Committed at the end of each turn, and closed at the end."""
    breakers: Sequence[Breaker] = ()
    """The circuit breakers of the services that the stage calls; their changes are logged."""
    tick: Callable[[Instant], Actions] = _no_actions
    """Called every `TICK_S`: what is due by the clock."""
    drain: Callable[[Instant], Actions] = _no_actions
    """Called once on SIGTERM: the state starts nothing new."""
    drained: Callable[[Instant], bool] = lambda _: True
    """Whether the stage has nothing left to wait for, so that the process may stop."""
    last_words: Callable[[Instant], Actions] = _no_actions
    """Called once when the stage is drained, for the messages that tell others so."""
    report: Callable[[Instant], Report] = lambda _: Report()
    """What the heartbeat says about the stage."""
    idle_tick_s: Callable[[Instant], float | None] = lambda _: None
    """While the stage has nothing to do, the seconds between two ticks; None otherwise. Asked in each turn."""
    commits_beside: bool = False
    """Whether a thread commits, so that the loop goes on while the disk writes."""
    free_effects: Mapping[type, Callable[[Any], None]] = field(default_factory=dict)
    """Type of an action that depends on committed writes only → the function that performs it in this turn."""


@dataclass
class BackgroundFailure:
    """Event: a background call raised an unexpected exception. It stops the process."""

    error: BaseException


class Loop:
    """Runs one stage. Create it first, give `background`, `post` and `watch` to the edges, then `run` the plan."""

    def __init__(self, wiring: Wiring) -> None:
        os.umask(0o077)  # only this user may read the files, folders and sockets that the process creates
        self.wiring = wiring
        self.boot_id = uuid.uuid4().hex
        self.sockets = Sockets(wiring)
        self._log = structlog.get_logger()
        self._events: deque[Any] = deque()
        self._later: list[Any] = []
        self._free: list[Any] = []
        self._committer: Committer | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = zmq.Poller()
        self._poller.register(self.sockets.inbox, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)
        self._watched: dict[int, Callable[[], None]] = {}
        self._stopping = False
        self._supervisor = SupervisorWatch()
        self._orphan_ends_at = float("inf")
        self._thread = threading.get_ident()
        self._own_effects: dict[type, Callable[[Any], None]] = {
            Send: lambda send: self.sockets.send(send.to, send.message),
            AfterCommit: lambda action: self.post(action.event),
            Log: lambda log: getattr(self._log, log.level)(log.event, **log.fields),
            Count: lambda count: metrics.count(*count),
            Observe: lambda observed: metrics.observe(*observed),
        }
        zero_series.begin(wiring.stage)
        self._usage = metrics.ProcessUsage(wiring.stage, wiring.instance)

    def post(self, event: Any) -> None:
        """Give an event to the loop; may be called from any thread."""
        self._events.append(event)
        if threading.get_ident() != self._thread:
            os.eventfd_write(self._wake, 1)

    def background(self, pool: ThreadPoolExecutor, call: Callable[..., Any], *args: Any) -> None:
        """Call a function on a thread of the pool. Its return value is an event; an exception stops the process."""
        pool.submit(call, *args).add_done_callback(self._done)

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever the descriptor is readable."""
        self._watched[descriptor] = ready
        self._poller.register(descriptor, zmq.POLLIN)

    def run(self, plan: Plan) -> None:
        """Run until SIGTERM or SIGINT, and then until the stage is drained."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._log.info("process_started", pid=os.getpid(), boot_id=self.boot_id)
        for breaker in plan.breakers:
            metrics.show_breaker(breaker.service, breaker.state, breaker.reason)
        if plan.store and plan.commits_beside:
            self._committer = Committer(plan.store, self.post, lambda error: self.post(BackgroundFailure(error)))
        draining = False
        ticked_at = next_tick = next_beat = 0.0
        while True:
            readable = self._wait(next_tick)
            now = clock.now()
            if readable:
                self._receive(plan, now)
            self._handle_events(plan, now)
            if now.mono >= next_tick:
                ticked_at = now.mono
                self._notice_orphaned(now)
                self._decide(plan, plan.tick(now))
            if now.mono >= next_beat:
                next_beat = now.mono + HEARTBEAT_INTERVAL_S
                self._beat(plan, now)
            if self._stopping and not draining:
                draining = True
                self._log.info("drain_started")
                self._decide(plan, plan.drain(now))
            next_tick = ticked_at + (plan.idle_tick_s(now) or TICK_S)
            self._finish_turn(plan)
            if draining and self._may_end(plan, now):
                break
        self._end(plan)

    def _end(self, plan: Plan) -> None:
        now = clock.now()
        self._decide(plan, plan.last_words(now))
        self._finish_turn(plan)
        if self._committer:
            self._committer.close()
            self._handle_events(plan, now)
        self._beat(plan, now)  # reports what was counted since the last one
        self.sockets.close()
        if plan.store:
            plan.store.close()
        self._log.info("process_stopped")
        if self._orphan_ends_at != float("inf"):
            os._exit(0)  # an ordinary exit would wait for the provider calls of threads, for minutes

    def _may_end(self, plan: Plan, now: Instant) -> bool:
        is_committed = self._committer is None or self._committer.is_idle
        return not self._events and is_committed and (plan.drained(now) or now.mono >= self._orphan_ends_at)

    def _notice_orphaned(self, now: Instant) -> None:
        """Drain and end soon if supervisord is gone: the next supervisord's programs need the sockets and locks."""
        if self._orphan_ends_at == float("inf") and self._supervisor.is_gone():
            self._log.warning(
                "supervisord_gone", reason=f"supervisord is gone: this process ends in {ORPHAN_ENDS_S:g} s"
            )
            self._orphan_ends_at = now.mono + ORPHAN_ENDS_S
            self._stopping = True

    def _stop(self, *_: object) -> None:
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def _done(self, future: Future[Any]) -> None:
        if not future.cancelled():
            error = future.exception()
            self.post(BackgroundFailure(error) if error else future.result())

    def _wait(self, until: float) -> bool:
        """Wait until there is something to do; return whether the inbox has messages."""
        timeout = 0.0 if self._events else max(0.0, until - clock.now().mono)
        readable = False
        for ready, _ in self._poller.poll(int(timeout * 1000) + (timeout > 0)):
            if ready is self.sockets.inbox:
                readable = True
            elif ready == self._wake:
                os.eventfd_read(self._wake)
            elif isinstance(ready, int):
                self._watched[ready]()
        return readable

    def _receive(self, plan: Plan, now: Instant) -> None:
        for _ in range(FRAMES_PER_TURN):
            frame = self.sockets.receive()
            if frame is None:
                break
            sender, payload = frame
            try:
                message = decode(payload)
            except msgspec.MsgspecError:
                self._undecodable(sender, payload, "undecodable_frame")
                continue
            handler = plan.handlers.get(type(message))
            if handler is None:
                self._undecodable(sender, payload, "unexpected_message")
                continue
            self._decide(plan, handler(message, now))

    def _handle_events(self, plan: Plan, now: Instant) -> None:
        while self._events:
            event = self._events.popleft()
            if isinstance(event, BackgroundFailure):
                raise event.error
            if isinstance(event, Committed) and self._committer:
                self._perform(plan, self._committer.on_committed(event))
                continue
            self._decide(plan, plan.handlers[type(event)](event, now))

    def _decide(self, plan: Plan, actions: Actions) -> None:
        for action in actions:
            write = plan.writes.get(type(action))
            if write is not None:
                write(action)
            elif type(action) in plan.free_effects:
                self._free.append(action)
            else:
                self._later.append(action)

    def _finish_turn(self, plan: Plan) -> None:
        later, self._later = self._later, []
        free, self._free = self._free, []
        if self._committer:
            later = self._committer.end_turn(later)
        elif plan.store:
            plan.store.commit()
        for breaker in plan.breakers:
            breaker_report.tell(breaker)
        for action in free:
            plan.free_effects[type(action)](action)
        self._perform(plan, later)
        self.sockets.flush()

    def _perform(self, plan: Plan, actions: Sequence[Any]) -> None:
        for action in actions:
            perform = plan.effects.get(type(action)) or self._own_effects[type(action)]
            perform(action)

    def _beat(self, plan: Plan, now: Instant) -> None:
        report = plan.report(now)
        self._usage.update()
        wiring = self.wiring
        beat = Heartbeat(
            wiring.stage, wiring.instance, self.boot_id, os.getpid(), now.wall, report.blockers, report.facts,
            metrics.snapshot(), report.windows,
        )  # fmt: skip
        self.sockets.send("monitor", beat)

    def _undecodable(self, sender: str, payload: bytes, event: str) -> None:
        stage = stage_of(sender)
        metrics.UNDECODABLE.labels(stage if stage in SENDERS else metrics.OTHER_SENDER).inc()
        self._log.warning(event, sender=sender[:32], bytes=len(payload))


def main(instance: str, start: Callable[[], None]) -> None:
    """Run a stage's entry point. A `Fatal` is logged as one line; any other exception with its traceback."""
    faulthandler.enable()  # if a library crashes the process, standard error shows where
    try:
        start()
    except SystemExit:
        raise
    except Fatal as error:
        structlog.get_logger().critical("fatal_error", reason=str(error))
    except BaseException as error:  # noqa: BLE001  the process ends
        structlog.get_logger().critical("process_crashed", instance=instance, error=type(error).__name__)
        traceback.print_exc()
    else:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # at once: a normal exit would wait minutes for the provider calls on threads
