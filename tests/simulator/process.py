"""A simulated process: it takes turns, commits its writes, and may die or be stopped at any time.

A process takes turns like `common.process.loop`: it decides, commits its writes, and only then sends. If it commits
beside its turns (`commits_beside`), the commit takes a while, and only free effects are carried out meanwhile.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from common.process.actions import AfterCommit, Log, Send
from common.wire import messages as m
from common.wire.wiring import REPEATED
from tests.simulator.world import World, named

TICK_S = 0.1
"""Seconds between ticks of a process."""
COMMIT_S = (0.0005, 0.005, 0.05, 0.5)
"""Seconds that a commit takes beside the turns of a process."""


class Process:
    """One process: how its state is made, what it does, and when it dies."""

    commits_beside = False
    """Whether it goes on while its writes are being committed."""
    free_effects: tuple[type, ...] = ()
    """Actions that depend on committed writes only: they do not wait for a commit."""

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
        self._uncommitted: list[tuple[list[Callable[[], None]], list[Any]]] = []
        """Of each turn that is not committed yet: its writes, and what follows after the commit."""
        self._is_committing = False
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
        self._writes.clear()
        self._uncommitted.clear()
        self._is_committing = False
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
        if self._is_committing and self.world.random.random() < 0.5:  # its commit was through, and nothing followed
            for write in self._uncommitted[0][0]:
                write()
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
        if self.commits_beside and (self._writes or self._uncommitted):
            free = [action for action in later if isinstance(action, self.free_effects)]
            self._carry_out(free)
            self._uncommitted.append((self._writes, [one for one in later if not isinstance(one, self.free_effects)]))
            self._writes = []
            self._begin_commit()
            return
        self._commit()
        self._follow(later)

    def _begin_commit(self) -> None:
        """Commit all that has gathered, some time later."""
        if self._is_committing or not self.alive:
            return
        self._is_committing = True
        life, number = self.life, len(self._uncommitted)

        def committed() -> None:
            if self.life != life or not self.alive:
                return  # it died before the commit
            if self.stopped:
                self.world.later(TICK_S, committed)
                return
            turns, self._uncommitted = self._uncommitted[:number], self._uncommitted[number:]
            self._is_committing = False
            self._writes, own = [write for writes, _ in turns for write in writes], self._writes
            self._commit()
            self._writes = own
            self._follow([action for _, later in turns for action in later])
            if self._uncommitted:
                self._begin_commit()

        self.world.later(self.world.random.choice(COMMIT_S), committed)

    def _follow(self, later: list[Any]) -> None:
        """Carry out what was waiting for a commit."""
        if self.dies == "after" and later:
            later = later[: self.world.random.randrange(len(later))]
        self._carry_out(later)
        if self.alive and (self.dies == "after" or (self.draining and self.drained() and not self._uncommitted)):
            self.kill(self.back_after)

    def _carry_out(self, actions: list[Any]) -> None:
        for action in actions:
            if not self.alive:
                return
            if isinstance(action, Send):
                self._send(action)
            elif isinstance(action, AfterCommit):
                self.event(action.event, 0.0)
            elif isinstance(action, Log):
                self.world.tell(self.name, f"{action.event} {action.fields}" if self.world.story is not None else "")
            else:
                self.effect(action)

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
