"""A simulated machine: one clock, processes that start and die, and the messages between them.

A process takes turns like `common.process.loop`: it decides, commits its writes, and only then sends.
The network behaves like ZeroMQ: messages from one sender to one receiver keep their order. Messages that a killed
receiver had not read are lost. While a receiver is down, messages wait at the sender (and are lost with it), or are
dropped if the sender repeats them anyway. A disturbed network also loses messages that are repeated, doubles others,
lets some overtake others by 0.3 s, and delays them by up to 0.5 s, which ZeroMQ on one machine does not. Left out are
losses of messages that are said once, copies that arrive much later, and delays of seconds: ZeroMQ does none of these
while both processes live, and the design relies on it (the rate limiter would take such a batch for lost).

Each event is one step. A world that is told to tells its story: one line for each thing that happens.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from common.process.actions import Instant, Log, Send
from common.wire import messages as m
from common.wire.wiring import REPEATED

BEGINNING = 1_750_000_000.0
"""Unix seconds at the start of every simulation."""
TICK_S = 0.1
"""Seconds between ticks of a process."""


class World:
    """The clock, the processes, and the queue of future events."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.processes: dict[str, Process] = {}
        self.steps = 0
        """Events so far."""
        self.injected: Counter[str] = Counter()
        """Faults by kind, how often each was injected."""
        self.story: list[str] | None = None
        """The lines of the story, if it is told."""
        self.disturbance = ""
        """What the network does to some messages now: lose, repeat, reorder or delay them; empty for nothing."""
        self.wall_step_s = 0.0
        """How far the wall clock has been set ahead, or back."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    @property
    def instant(self) -> Instant:
        return Instant(self.now, BEGINNING + self.now + self.wall_step_s)

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story."""
        if self.story is not None:
            self.story.append(f"{self.now:9.4f} s  {who:<12}  {what}")

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._number), event))

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Run all events until this time, or until `done`, which is checked once per simulated second."""
        check_at = self.now
        while self._events and self._events[0][0] <= until:
            if self.now >= check_at:
                check_at = self.now + 1.0
                if done():
                    return
            self.now, _, event = heapq.heappop(self._events)
            self.steps += 1
            event()
        self.now = max(self.now, until)

    def delay(self) -> float:
        """Seconds for which a message is in transit."""
        return self.random.choice((0.0002, 0.001, 0.005, 0.02, 0.1))


class Process:
    """One process: how its state is made, what it does, and when it dies."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = False
        self.stopped = False
        self.draining = False
        self.life = 0
        self.deaths: list[float] = []
        self.dies: str | None = None
        """`before` or `after`: die before or after the commit of the next turn that writes or sends."""
        self.back_after = 1.0
        """Seconds until it is started again after that."""
        self.inbox: deque[Any] = deque()
        self._waiting: defaultdict[str, list[m.Message]] = defaultdict(list)
        self._arrives: dict[str, float] = {}
        self._writes: list[Callable[[], None]] = []
        world.processes[name] = self

    # ---- defined by each stage ----

    def begin(self) -> None:
        """Make the state from the data on disk."""
        raise NotImplementedError

    def handle(self, message: Any) -> Iterable[Any]:
        raise NotImplementedError

    def tick(self) -> Iterable[Any]:
        raise NotImplementedError

    def write(self, action: Any) -> Callable[[], None] | None:
        """The write that an action asks for, or None if it asks for none."""
        return None

    def effect(self, action: Any) -> None:
        """Carry out an action that is neither a message nor a write."""

    def drain(self) -> Iterable[Any]:
        raise NotImplementedError

    def drained(self) -> bool:
        return True

    def remember(self) -> None:
        """Called before each turn, which may be the last one."""

    def check(self) -> None:
        """Check what must be true after each turn."""

    def resumed(self) -> None:
        """Called when it goes on after it was stopped."""

    # ---- start, stop, death ----

    def start(self) -> None:
        self.life += 1
        self.world.tell(self.name, "starts")
        self.alive, self.stopped, self.draining, self.dies = True, False, False, None
        self.inbox.clear()
        self._waiting.clear()
        self._arrives.clear()
        self.begin()
        for other in self.world.processes.values():
            if self.name in other._waiting:
                self.world.later(self.world.random.uniform(0.0, 0.1), self._flush_of(other))
        self._ticks(self.life)

    def kill(self, back_after: float = 1.0) -> None:
        if not self.alive:
            return
        self.alive = False
        self.world.tell(self.name, "dies")
        self.deaths.append(self.world.now)
        self.world.later(back_after, self.start)

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after this many seconds."""
        if self.alive and not self.stopped:
            self.stopped = True
            self.world.tell(self.name, f"is stopped for {seconds:g} s")
            self.world.later(seconds, self._resumption(self.life))

    def terminate(self) -> None:
        """SIGTERM."""
        if self.alive and not self.draining:
            self.draining = True
            self._turn(self.drain())

    def _resumption(self, life: int) -> Callable[[], None]:
        def resume() -> None:
            if self.life == life and self.alive:
                self.stopped = False
                self.world.tell(self.name, "goes on")
                self.resumed()
                self._turn([], tick=True)

        return resume

    def _flush_of(self, other: Process) -> Callable[[], None]:
        life, others_life = self.life, other.life

        def flush() -> None:
            if (self.life, other.life) == (life, others_life) and self.alive and other.alive:
                for message in other._waiting.pop(self.name, []):
                    other._transmit(self, message)

        return flush

    def _ticks(self, life: int) -> None:
        if self.life == life and self.alive:
            if not self.stopped:
                self._turn([], tick=True)
            self.world.later(TICK_S, lambda: self._ticks(life))

    # ---- turns ----

    def event(self, event: Any, seconds: float) -> None:
        """Deliver the outcome of an effect to this process after some seconds, if it is still alive."""
        life = self.life
        self.world.later(seconds, lambda: self.receive(event, life))

    def receive(self, message: Any, life: int) -> None:
        if self.life == life and self.alive:
            self.inbox.append(message)
            if not self.stopped:
                self._turn([])

    def _turn(self, actions: Iterable[Any], *, tick: bool = False) -> None:
        self.remember()
        later = self._decide(actions)
        while self.inbox:
            later += self._decide(self.handle(self.inbox.popleft()))
        if tick:
            later += self._decide(self.tick())
        self.check()
        if self.dies == "before" and (self._writes or later):
            self._writes.clear()
            self.kill(self.back_after)
            return
        self._commit()
        if self.dies == "after" and later:
            later = later[: self.world.random.randrange(len(later))]
        for action in later:
            if isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Log):
                self.world.tell(self.name, f"{action.event} {action.fields}" if self.world.story is not None else "")
            else:
                self.effect(action)
            if not self.alive:
                return
        if self.dies == "after" or (self.draining and self.drained()):
            self.kill(self.back_after)

    def _commit(self) -> None:
        for write in self._writes:
            write()
        if self._writes:
            self.world.tell(self.name, f"commits {len(self._writes)} writes")
        self._writes.clear()

    def _decide(self, actions: Iterable[Any]) -> list[Any]:
        later = []
        for action in actions:
            write = self.write(action)
            if write is None:
                later.append(action)
            else:
                self._writes.append(write)
        return later

    # ---- messages ----

    def _send(self, send: Send) -> None:
        name = send.to.removeprefix("ipc://")
        receiver = self.world.processes[name]
        if (not receiver.alive or name in self._waiting) and isinstance(send.message, REPEATED):
            return
        message = m.decode(m.encode(send.message))  # nothing is shared between processes
        if not receiver.alive or name in self._waiting:
            self._waiting[name].append(message)
        else:
            self._transmit(receiver, message)

    def _transmit(self, receiver: Process, message: m.Message) -> None:
        world = self.world
        at = max(self._arrives.get(receiver.name, 0.0), world.now + world.delay())
        life, copies = receiver.life, 2 if world.random.random() < 0.02 else 1
        may_disturb = world.disturbance != "lose" or isinstance(message, REPEATED)
        if world.disturbance and may_disturb and world.random.random() < 0.2:
            world.injected[f"message: {world.disturbance}"] += 1
            if world.story is not None:
                world.tell(self.name, f"the network will {world.disturbance} {named(message)} to {receiver.name}")
            match world.disturbance:
                case "lose":
                    return
                case "repeat":
                    copies = 3  # at once: a late copy would be a message of another time
                case "reorder":
                    at += world.random.choice((0.0, 0.3))
                case _:
                    at += world.random.choice((0.2, 0.5))
        if world.disturbance != "reorder":
            self._arrives[receiver.name] = at

        def arrive(life: int) -> None:
            if world.story is not None:
                world.tell(receiver.name, f"reads {named(message)} of {self.name}")
            receiver.receive(message, life)

        for _ in range(copies):
            world.later(at - world.now, lambda: arrive(life))


def named(message: m.Message) -> str:
    """A message in the words of a story: its name, and the tasks that it is about."""
    found = [getattr(message, name) for name in ("tasks", "results") if getattr(message, name, None)]
    ids = (
        [item.id for items in found for item in items]
        or getattr(message, "ids", [])
        or getattr(message, "accepted", [])
    )
    shown = ", ".join(ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")
    return f"{type(message).__name__}({shown})"


def void(_: object) -> None:
    """Discard the value of an expression."""
