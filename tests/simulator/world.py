"""A simulated machine: one clock, processes that start and die, and the messages between them.

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
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from common.process.actions import Instant
from common.wire import messages as m

if TYPE_CHECKING:
    from tests.simulator.process import Process

BEGINNING = 1_750_000_000.0
"""Unix seconds at the start of every simulation."""


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
