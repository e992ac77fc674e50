"""How the tokens that providers report compare with the estimates, for each model. It is shown to operators only.

An estimate is never scaled by this ratio: an estimate must not be too low for any single text, and the ratio is only an
average.
"""

from __future__ import annotations

WEIGHT_OF_THE_PAST = 0.99
"""The weight of all earlier batches when a new one is added: the ratio is that of the latest hundred or so."""
MOST_MODELS = 50
"""Tasks may name any model. As many are kept as metrics tell apart."""


class TokenRatios:
    """Reported tokens divided by estimated tokens, by model."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        """Model → (estimated, reported), weighted."""

    def learn(self, model: str, estimated: int, reported: int) -> None:
        """Add a batch whose texts were all sent once and answered."""
        if estimated <= 0 or reported <= 0 or (model not in self._sums and len(self._sums) >= MOST_MODELS):
            return
        before, reported_before = self._sums.get(model, (0.0, 0.0))
        self._sums[model] = WEIGHT_OF_THE_PAST * before + estimated, WEIGHT_OF_THE_PAST * reported_before + reported

    def by_model(self) -> dict[str, float]:
        """The ratios: about 0.25 where bytes stand for tokens, 1.0 where tokens are counted."""
        return {model: reported / estimated for model, (estimated, reported) in self._sums.items()}
