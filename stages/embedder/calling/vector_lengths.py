"""How long the vectors of each model must be: one name, one length.

The first of these that knows the length decides:

1. EMBEDDING_LENGTHS, for this model.
2. The number of dimensions that the request asked for; EMBEDDING_DIMENSIONS, if it was not sent.
3. The table of known models (providers/model_lengths.py).
4. What earlier runs have learnt (length_record.py).
5. What two responses agree on, of the first ones. One response alone proves nothing: it may be the wrong one.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping

import structlog

from stages.embedder.calling.length_record import LengthRecord
from stages.embedder.providers.model_lengths import known_length

ENOUGH_VOTES = 2
"""Responses that must agree on a length, and be more than those for any other."""
MAX_MODELS = 1000
"""Number of models whose responses are counted, and of models that are in doubt."""

log = structlog.get_logger()


class VectorLengths:
    """Knows the lengths, and which models are in doubt; used by all threads."""

    def __init__(
        self, configured: Mapping[str, int] | None = None, dimensions: int = 0, record: LengthRecord | None = None
    ) -> None:
        """`configured` is EMBEDDING_LENGTHS, `dimensions` EMBEDDING_DIMENSIONS."""
        self._configured = configured or {}
        self._dimensions = dimensions
        self._record = record
        self._lock = threading.Lock()
        self.first_canary = threading.Lock()
        """Held by the batch that sends the canary of an unknown model."""
        self._learned: dict[str, int] = {}
        self._votes: dict[str, Counter[int]] = {}
        self._doubted: dict[tuple[str, str], None] = {}

    def objection(self, model: str, length: int, asked: int = 0) -> str | None:
        """Why a vector of this length is wrong, in words; empty if it is right, None if that is not known yet.

        `asked` is the number of dimensions that the request asked for, 0 if it did not.
        """
        if configured := self._configured.get(model):
            return "" if length == configured else f"EMBEDDING_LENGTHS says {configured}"
        if asked:
            return "" if length == asked else f"{asked} were asked for (EMBEDDING_DIMENSIONS)"
        if length == self._dimensions:
            return ""  # the field was not sent: the model does not support it, or the provider does not say
        own = self._own(model)
        if own is None:
            return None
        source = f"those of {model} have {own}" if known_length(model) else f"those of {model} had {own} before"
        return "" if length == own else source

    def length_of(self, model: str) -> int | None:
        """The one length of the model's vectors; None if it is not known, or depends on what is asked for."""
        configured = self._configured.get(model)
        return configured if configured or self._dimensions else self._own(model)

    def is_unknown(self, model: str) -> bool:
        """Whether nothing is known about the model's vectors, not even one response."""
        return not self._dimensions and model not in self._votes and self.length_of(model) is None

    def vote(self, model: str, length: int) -> None:
        """Count a response with vectors of this length; learn the length if enough responses agree."""
        if self._own(model) is not None:
            return
        with self._lock:
            votes = self._votes.setdefault(model, Counter())
            votes[length] += 1
            while len(self._votes) > MAX_MODELS:
                del self._votes[next(iter(self._votes))]
            (first, most), *others = votes.most_common(2)
            if most < ENOUGH_VOTES or (others and others[0][1] == most) or model in self._learned:
                return
            self._learned[model] = self._record.put(model, first) if self._record else first
            log.info("vector_length_learned", model=model, length=self._learned[model])

    def doubt(self, provider: str, model: str) -> None:
        """Remember that a provider sends unusable vectors for a model: a canary goes before the next texts."""
        with self._lock:
            self._doubted[provider, model] = None
            while len(self._doubted) > MAX_MODELS:
                del self._doubted[next(iter(self._doubted))]

    def trust(self, provider: str, model: str) -> None:
        """Note that the vectors of a provider for a model are usable again."""
        with self._lock:
            self._doubted.pop((provider, model), None)

    def is_doubted(self, provider: str, model: str) -> bool:
        """Whether a canary must show first that the vectors are usable."""
        return (provider, model) in self._doubted

    def _own(self, model: str) -> int | None:
        """The length of what the model sends if it is not asked for another one."""
        known = known_length(model) or self._learned.get(model)
        return known or (self._record.get(model) if self._record else None)


def remedy(model: str, length: int) -> str:
    """What an operator can do if the length that came is the right one."""
    return f"if {length} is right, set EMBEDDING_LENGTHS={json.dumps({model: length}, ensure_ascii=False)}"
