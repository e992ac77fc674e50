"""A simulated machine: one clock, processes that live and die, and the messages between them.

A process takes turns as `common.process.loop` does: it decides, commits what was written, and only then sends.
What is modelled of the network is what ZeroMQ does: messages of one sender to one receiver keep their order; those
that a killed receiver had not read are lost; what is sent while nobody listens waits with the sender (and dies with
it), or is dropped if the sender repeats it anyway.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from common.process.actions import Instant, Send
from common.wire import messages as m
from common.wire.wiring import REPEATED

BEGINNING = 1_750_000_000.0
"""Wall seconds at which every world begins."""
TICK = 0.1


class World:
    """The clock and all that is to happen."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.processes: dict[str, Process] = {}
        self._happenings: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    @property
    def instant(self) -> Instant:
        return Instant(self.now, BEGINNING + self.now)

    def later(self, seconds: float, happening: Callable[[], None]) -> None:
        heapq.heappush(self._happenings, (self.now + seconds, next(self._number), happening))

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let happen what is to happen until then, or until it is done."""
        look_at = self.now
        while self._happenings and self._happenings[0][0] <= until:
            if self.now >= look_at:
                look_at = self.now + 1.0
                if done():
                    return
            self.now, _, happening = heapq.heappop(self._happenings)
            happening()
        self.now = max(self.now, until)

    def delay(self) -> float:
        """How long a message is on its way: usually a moment."""
        return self.random.choice((0.0002, 0.001, 0.005, 0.02, 0.1))


class Process:
    """One process: what makes its state anew, what it does, and its fate."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = False
        self.stopped = False
        self.draining = False
        self.life = 0
        self.deaths: list[float] = []
        self.doom: str | None = None
        """`before` or `after` the commit of a turn that is to be its last."""
        self.back_after = 1.0
        """Seconds until it is started again then."""
        self.inbox: deque[Any] = deque()
        self._waiting: defaultdict[str, list[m.Message]] = defaultdict(list)
        self._arrives: dict[str, float] = {}
        self._writes: list[Callable[[], None]] = []
        world.processes[name] = self

    # ---- what each stage says of itself ----

    def begin(self) -> None:
        """Make the state from what is on disk."""
        raise NotImplementedError

    def handle(self, message: Any) -> Iterable[Any]:
        raise NotImplementedError

    def tick(self) -> Iterable[Any]:
        raise NotImplementedError

    def write(self, action: Any) -> Callable[[], None] | None:
        """How to write what an action says, if it does."""
        return None

    def effect(self, action: Any) -> None:
        """Do what an action says that is neither a message nor a write."""

    def drain(self) -> Iterable[Any]:
        raise NotImplementedError

    def drained(self) -> bool:
        return True

    def remember(self) -> None:
        """What is to be known of the moment before a turn that may be the last."""

    def check(self) -> None:
        """What must be true after each turn."""

    # ---- life and death ----

    def start(self) -> None:
        self.life += 1
        self.alive, self.stopped, self.draining, self.doom = True, False, False, None
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
        self.deaths.append(self.world.now)
        self.world.later(back_after, self.start)

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        if self.alive and not self.stopped:
            self.stopped = True
            self.world.later(seconds, self._go_on(self.life))

    def terminate(self) -> None:
        """SIGTERM."""
        if self.alive and not self.draining:
            self.draining = True
            self._turn(self.drain())

    def _go_on(self, life: int) -> Callable[[], None]:
        def go_on() -> None:
            if self.life == life and self.alive:
                self.stopped = False
                self._turn([], tick=True)

        return go_on

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
            self.world.later(TICK, lambda: self._ticks(life))

    # ---- turns ----

    def event(self, event: Any, seconds: float) -> None:
        """Something that this process began comes back to it later, if it still lives then."""
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
        if self.doom == "before" and (self._writes or later):
            self._writes.clear()
            self.kill(self.back_after)
            return
        for write in self._writes:
            write()
        self._writes.clear()
        if self.doom == "after" and later:
            later = later[: self.world.random.randrange(len(later))]
        for action in later:
            if isinstance(action, Send):
                self._send(action)
            else:
                self.effect(action)
            if not self.alive:
                return
        if self.doom == "after" or (self.draining and self.drained()):
            self.kill(self.back_after)

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
        self._arrives[receiver.name] = at
        life = receiver.life
        for _ in range(2 if world.random.random() < 0.02 else 1):
            world.later(at - world.now, lambda: receiver.receive(message, life))
