"""Records which tasks an embedder had when it died or was suspended: only these may be paid twice."""

from __future__ import annotations

from abc import abstractmethod

from common.wire import messages as m
from tests.simulator.process import Process
from tests.simulator.world import World


class RecordsLosses(Process):
    """A process that counts, for each task, how often it was lost with this process."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.lost: dict[str, int] = {}
        """Task id → how often it was lost with this process."""
        self._before: set[str] = set()

    @abstractmethod
    def task_ids(self) -> set[str]:
        """The tasks that it has now, without those in unread messages."""

    def kill(self, back_after: float = 1.0) -> None:
        if self.alive:
            self._count_losses()
        super().kill(back_after)

    def stop(self, seconds: float) -> None:
        # After a short pause nothing counts as lost; the rate limiter has not given up on the embedder.
        if self.alive and not self.stopped and seconds > 2.0:
            self._count_losses()
            self.world.later(seconds - 0.001, self._count_losses)
        super().stop(seconds)

    def remember(self) -> None:
        self._before = self.task_ids()

    def _count_losses(self) -> None:
        unread = [task.id for message in self.inbox if isinstance(message, m.Batch) for task in message.tasks]
        for task_id in {*unread, *self._before, *self.task_ids()}:
            self.lost[task_id] = self.lost.get(task_id, 0) + 1
