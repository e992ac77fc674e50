"""What the state learns from the embedding engine: which models and providers cannot be used now, and why."""

from __future__ import annotations

from common.process.actions import Actions, Instant
from common.wire import messages
from stages.embedder.actions import BatchProcessed
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.state import Embedder


class EngineNews:
    """Handlers of the state, each with the engine's news before it."""

    def __init__(self, engine: EmbeddingEngine, state: Embedder) -> None:
        self._engine = engine
        self._state = state

    def on_tick(self, now: Instant) -> Actions:
        """Tell the state all news."""
        self._learn_cooldowns(now)
        self._state.blockers = self._engine.blockers()
        self._state.facts = {**self._engine.facts, "notices": self._engine.notices()}
        return self._state.on_tick(now)

    def on_processed(self, event: BatchProcessed, now: Instant) -> Actions:
        """Tell the state what the batch has learned: it goes out with the end of the batch, not with the next tick."""
        self._learn_cooldowns(now)
        return self._state.on_processed(event, now)

    def on_cooldowns(self, message: messages.ProviderCooldowns, now: Instant) -> Actions:
        """Take over what another embedder has learned."""
        self._engine.apply_cooldowns(message.until, now)
        return self.on_tick(now)

    def on_drain(self, now: Instant) -> Actions:
        """Begin no further request."""
        self._engine.stop()
        return self._state.on_drain(now)

    def _learn_cooldowns(self, now: Instant) -> None:
        self._state.key_cooldowns = self._engine.key_cooldowns(now.wall)
        self._state.provider_cooldowns = self._engine.provider_cooldowns(now)
