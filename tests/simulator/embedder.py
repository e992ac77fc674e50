"""An embedder on the simulated machine: its real state, and its real engine, whose threads run in lockstep."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from common import task_types
from common.settings.settings import Settings
from common.wire import messages as m
from stages.embedder.actions import BatchProcessed, ProcessBatch
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.state import Embedder
from stages.embedder.worker_pool import WorkerPool
from tests import samples
from tests.simulator.lockstep import LockstepThread, pause
from tests.simulator.losses import RecordsLosses
from tests.simulator.outside import Api
from tests.simulator.provider import LENGTH, Provider, ProviderClient
from tests.simulator.world import World

SLOTS = 2


@functools.cache
def settings() -> Settings:
    """OpenAI without a cache, and models whose vectors' length is known."""
    lengths = f'{{"small": {LENGTH}, "large": {LENGTH}}}'
    return samples.settings(
        processing_mode="openai", openai_api_key="sk-0123456789", embedding_cache_size=0, embedding_lengths=lengths
    )


class EmbedderProcess(RecordsLosses):
    """Nothing is on disk; what it had when it died, or was silent for long, may be paid twice."""

    def __init__(self, world: World, name: str, provider: Provider, api: Api) -> None:
        super().__init__(world, name)
        self.provider = provider
        self.api = api
        self.crash_loops_until = 0.0
        """Until this time every batch kills the process."""
        self.threads: list[LockstepThread] = []
        self._held: list[LockstepThread] = []
        """Threads whose pause has ended while the process was stopped."""

    def begin(self) -> None:
        world = self.world
        self.state = Embedder(self.name, f"{self.name}-{self.life}", f"ipc://{self.name}", SLOTS)
        client = ProviderClient(self.provider, self.name)
        self.engine = EmbeddingEngine(settings(), made=[client], clock=lambda: world.instant, wait=self._wait)
        self.engine.parts = self.engine.parts._replace(wait_for_stop=self._wait)
        self.pool = WorkerPool(SLOTS, task_types.registered(), self.engine, self._background)

    def handle(self, message: Any) -> Iterable[Any]:
        if isinstance(message, m.ProviderCooldowns):
            self.engine.apply_cooldowns(message.until, self.world.instant)
            return self.tick()
        handlers: dict[type, Callable[..., Iterable[Any]]] = {
            m.Batch: self.state.on_batch,
            m.Stored: self.state.on_stored,
            BatchProcessed: self.state.on_processed,
        }
        return handlers[type(message)](message, self.world.instant)

    def tick(self) -> Iterable[Any]:
        state, now = self.state, self.world.instant
        state.key_cooldowns = self.engine.key_cooldowns(now.wall)
        state.provider_cooldowns = self.engine.provider_cooldowns(now)
        return state.on_tick(now)

    def drain(self) -> Iterable[Any]:
        self.engine.stop()
        for thread in self.threads:
            if thread.may_be_woken:
                self._continue_after(0.0, thread)
        return self.state.on_drain(self.world.instant)

    def drained(self) -> bool:
        return self.state.is_drained(self.world.instant)

    def task_ids(self) -> set[str]:
        return {task_id for slot in self.state.slots.values() for task_id in slot.ids}

    def kill(self, back_after: float = 1.0) -> None:
        super().kill(back_after)
        self.end_threads()

    def end_threads(self) -> None:
        """End what its threads do, wherever they are."""
        for thread in self.threads:
            thread.end()
        self.threads, self._held = [], []

    def check(self) -> None:
        is_disturbed = any(kind.startswith("message") for kind in self.world.injected)
        assert is_disturbed or len(self.state.slots) <= SLOTS, f"{self.name} has more batches than slots"

    # ---- batches ----

    def effect(self, action: Any) -> None:
        if not isinstance(action, ProcessBatch):
            return
        is_poisoned = any(self.api.tasks[task.id].nature == "poison" for task in action.batch.tasks)
        if is_poisoned or self.world.now < self.crash_loops_until:
            life = self.life
            seconds = self.world.random.choice((0.01, 0.1, 1.0))
            self.world.later(seconds, lambda: self.kill(1.0) if self.life == life else None)
        else:
            self.pool.process(action)

    def resumed(self) -> None:
        held, self._held = self._held, []
        for thread in held:
            self._continue_after(self.world.random.choice((0.0, 0.01)), thread)

    def _background(self, _: ThreadPoolExecutor, call: Callable[..., Any], *arguments: Any) -> None:
        thread = LockstepThread(functools.partial(call, *arguments))
        self.threads.append(thread)
        self._continue_after(0.0, thread)

    def _continue_after(self, seconds: float, thread: LockstepThread) -> None:
        life, pauses = self.life, thread.pauses

        def go_on() -> None:
            if self.life != life or not self.alive or thread.finished or thread.pauses != pauses:
                return
            if self.stopped:
                self._held.append(thread)
                return
            rest = thread.resume()
            if rest is not None:
                self._continue_after(rest, thread)
                return
            self.threads.remove(thread)
            self.receive(thread.outcome, life)

        self.world.later(seconds, go_on)

    def _wait(self, seconds: float) -> bool:
        """Instead of waiting for the event that the embedder is told to stop."""
        if not self.engine.parts.runtime.is_stopping():
            pause(seconds, may_be_woken=True)
        return self.engine.parts.runtime.is_stopping()
