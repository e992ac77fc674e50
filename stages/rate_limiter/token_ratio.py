"""How near the estimates of tokens are to what providers report, for each model; for people to see.

An estimate is never scaled by it: it must not be too low for any single text, and a ratio is true only on average.
"""

from __future__ import annotations

FORGETS = 0.99
"""What a batch still weighs after the next one: the ratio is that of the latest hundred or so."""
MOST_MODELS = 50
"""Tasks may name any model; as many as metrics tell apart."""


class Ratios:
    """Reported tokens divided by estimated ones, by model."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def learn(self, model: str, estimated: int, reported: int) -> None:
        """Take in a batch all of whose texts were sent, once, and answered."""
        if estimated <= 0 or reported <= 0 or (model not in self._sums and len(self._sums) >= MOST_MODELS):
            return
        before, reported_before = self._sums.get(model, (0.0, 0.0))
        self._sums[model] = FORGETS * before + estimated, FORGETS * reported_before + reported

    def by_model(self) -> dict[str, float]:
        """Return the ratios: about 0.25 where bytes stand for tokens, 1.0 where these are counted."""
        return {model: reported / estimated for model, (estimated, reported) in self._sums.items()}
