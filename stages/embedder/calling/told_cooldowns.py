"""What other embedders have learned from refusals: which models a provider refuses, and until when."""

from __future__ import annotations

import random

from common.failures.cooldown import Cooldown

ALL_MODELS = "*"
"""Stands for all models of a provider."""
PAUSE_S = (0.5, 1.5)
"""How much later than the embedder that reported a cooldown the others probe: so one probe is enough for all."""
MAX_MODELS = 1000
"""Number of models that are remembered."""
REASON = "it refused the requests of another embedder"


class ToldCooldowns:
    """The cooldowns that were told for one provider. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._told: dict[str, Cooldown] = {}

    def tell(self, model: str, until: float, now: float) -> bool:
        """Take over a cooldown of a model, or of `ALL_MODELS`; returns whether it is news."""
        known = self._told.pop(model, Cooldown())
        is_news = until > max(now, known.until)
        if is_news:
            known = Cooldown(until + random.uniform(*PAUSE_S), REASON)  # noqa: S311  jitter
        self._told[model] = known
        while len(self._told) > MAX_MODELS:
            del self._told[next(iter(self._told))]
        return is_news

    def works(self, model: str) -> None:
        """Note that the model is served."""
        self._told.pop(model, None)
        self._told.pop(ALL_MODELS, None)

    def until(self, model: str | None, now: float) -> float:
        """When the model, or (None) any model, may be asked for; 0.0 if it may be now."""
        waits = [self._told[name] for name in (model, ALL_MODELS) if name is not None and name in self._told]
        return max((wait.until for wait in waits if not wait.is_over(now)), default=0.0)

    def models(self, now: float) -> set[str]:
        """The single models that are refused."""
        return {model for model, told in self._told.items() if model != ALL_MODELS and not told.is_over(now)}
