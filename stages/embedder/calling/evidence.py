"""What one provider served and refused, for the question whether a text or the provider is to blame.

A refused request says nothing about whose fault it is: a used-up budget is answered with the same 400 as a bad text.
What the provider did with other requests for the same model at about the same time does. If there were none, a canary
is sent: a short fixed text that cannot be at fault. The rules are those of `common.failures.attribution`; the items are
texts, the scope is a model at this provider.

All embedder threads share one `Evidence` for each provider. Times are monotonic seconds.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from common.failures.attribution import Attribution, Blame

CANARY = "canary"
"""The text of a canary."""
MAX_CASES = 10_000
"""Number of refused texts that are remembered. A forgotten text costs a few more requests, and nothing else."""
TICK_S = 1e-6
"""The least time between two stamps."""
MAX_MODELS = 1000
"""Number of models whose open refusals are remembered."""


class Evidence:
    """The evidence about all models of one provider."""

    def __init__(self) -> None:
        self._attribution = Attribution()
        self._lock = threading.Lock()
        self._latest = 0.0
        self._cases: dict[tuple[str, str], None] = {}
        self._undecided: dict[str, float] = {}

    def of(self, model: str) -> ModelEvidence:
        """The evidence about one model."""
        return ModelEvidence(self, model)

    def stamp(self, now: float) -> float:
        """A time for an event that is later than those of all events before it, even if the clock stands still."""
        with self._lock:
            return self._stamp(now)

    def served(self, model: str, text: str, now: float) -> None:
        """Note that a request with this text was served."""
        with self._lock:
            self._attribution.served(_item(text), (model,), self._stamp(now))
            self._undecided.pop(model, None)

    def served_since(self, model: str, since: float) -> bool:
        """Whether any request for the model was served after this stamp."""
        with self._lock:
            return self._attribution.last_served_at((model,)) > since

    def refused(self, model: str, text: str, now: float) -> int:
        """Note that a text was refused when it was sent alone; returns how many refusals count against the text."""
        item = _item(text)
        with self._lock:
            self._cases[model, item] = None
            while len(self._cases) > MAX_CASES:
                old_model, old_item = next(iter(self._cases))
                self._drop(old_model, old_item)
            finding = self._attribution.refused(item, (model,), self._stamp(now))
        return finding.counted if finding.blame is Blame.ITEM else 0

    def forget(self, model: str, text: str) -> None:
        """Forget a text that has its outcome."""
        with self._lock:
            self._drop(model, _item(text))

    def leave_undecided(self, model: str, now: float) -> None:
        """Note a refusal whose cause was not found out: the next request for the model is a canary."""
        with self._lock:
            self._undecided[model] = self._stamp(now)
            while len(self._undecided) > MAX_MODELS:
                self._undecided.pop(next(iter(self._undecided)))

    def undecided_since(self, model: str) -> float | None:
        """The stamp of a refusal that was left undecided; None if nothing is undecided."""
        with self._lock:
            return self._undecided.get(model)

    def _stamp(self, now: float) -> float:
        self._latest = max(now, self._latest + TICK_S)
        return self._latest

    def _drop(self, model: str, item: str) -> None:
        self._cases.pop((model, item), None)
        self._attribution.forget(item, (model,))


class ModelEvidence(NamedTuple):
    """The evidence about one model of a provider."""

    shared: Evidence
    model: str

    def stamp(self, now: float) -> float:
        """See `Evidence.stamp`."""
        return self.shared.stamp(now)

    def served(self, text: str, now: float) -> None:
        """See `Evidence.served`."""
        self.shared.served(self.model, text, now)

    def served_since(self, since: float) -> bool:
        """See `Evidence.served_since`."""
        return self.shared.served_since(self.model, since)

    def refused(self, text: str, now: float) -> int:
        """See `Evidence.refused`."""
        return self.shared.refused(self.model, text, now)

    def forget(self, text: str) -> None:
        """See `Evidence.forget`."""
        self.shared.forget(self.model, text)

    def leave_undecided(self, now: float) -> None:
        """See `Evidence.leave_undecided`."""
        self.shared.leave_undecided(self.model, now)

    def undecided_since(self) -> float | None:
        """See `Evidence.undecided_since`."""
        return self.shared.undecided_since(self.model)


def _item(text: str) -> str:
    """What a text is remembered by: its hash, so that no text is kept in memory."""
    return str(hash(text))
