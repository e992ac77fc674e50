"""Which optional fields the requests to one server have: what the server was seen not to support is left out.

`encoding_format: base64` is the usual one. Some servers name it when they refuse it; then it is left out at once.
Others answer 400 or 500, or without vectors, whenever it is asked for, and say nothing about it. Such an answer proves
nothing: the next request leaves the field out, as a trial. The lesson is learnt when `TRIALS` trials have succeeded,
and only for a model with which base64 has never worked.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import structlog

ENCODING = "encoding_format"
NO_DIMENSIONS = ("text-embedding-ada-002",)
"""Models that refuse `dimensions` (API reference). Other such models are detected by their first refusal."""
TRIALS = 2
"""Refusals with the field, each followed by a success without it: one could be a chance."""
TRIAL_PAUSE_S = 60.0
"""How long no trial is begun after one that met an outage."""
MAX_MODELS = 1000
"""Number of models that are remembered."""

log = structlog.get_logger()


class OptionalFields:
    """The optional fields of each model; used by all threads. Times are seconds of the monotonic clock."""

    def __init__(self, dimensions: int | None, *, is_base64_certain: bool) -> None:
        """`is_base64_certain`: the server is known to support base64, so nothing needs to be found out."""
        self._dimensions = dimensions
        self._is_certain = is_base64_certain
        self._dropped: dict[str, set[str]] = {}
        self._no_base64 = False
        self._works: dict[str, None] = {}
        self._on_trial: dict[str, str] = {}
        self._trials: Counter[str] = Counter()
        self._no_trial_before: dict[str, float] = {}

    def of(self, model: str) -> dict[str, Any]:
        """Return the fields of the next request for the model."""
        fields: dict[str, Any] = {ENCODING: "base64"}
        if self._dimensions and model not in NO_DIMENSIONS:
            fields["dimensions"] = self._dimensions
        for name in self._dropped.get(model, ()):
            fields.pop(name, None)
        if self._no_base64 or model in self._on_trial:
            fields.pop(ENCODING, None)
        return fields

    def drop(self, model: str, field: str, reason: str) -> None:
        """Leave the field out from now on: the server named it in its refusal."""
        log.warning("openai_field_dropped", model=model, field=field, reason=reason)
        self._dropped.setdefault(model, set()).add(field)

    def begin_trial(self, model: str, fields: dict[str, Any], reason: str, now: float) -> bool:
        """Begin a trial if base64, which was asked for, may be the reason of a failure; return whether it began."""
        if ENCODING not in fields or self._is_certain or model in self._works:
            return False
        if now < self._no_trial_before.get(model, 0.0) or len(self._on_trial) >= MAX_MODELS:
            return False
        self._on_trial[model] = reason
        return True

    def succeeded(self, model: str, fields: dict[str, Any]) -> None:
        """Note that a request with these fields brought vectors."""
        if ENCODING in fields:
            if len(self._works) < MAX_MODELS:
                self._works[model] = None
            return
        reason = self._on_trial.pop(model, None)
        if reason is None:
            return
        self._trials[model] += 1
        if self._trials[model] >= TRIALS and model not in self._works:
            self._learn(model, reason)

    def refused(self, model: str, fields: dict[str, Any]) -> bool:
        """Note that a request with these fields was refused, or brought no vectors; return whether that ends a trial.

        The next refusal with base64 is followed by a trial again: otherwise all texts of a server without base64 would
        fail because one of them is bad.
        """
        return ENCODING not in fields and self._on_trial.pop(model, None) is not None

    def failed(self, model: str, fields: dict[str, Any], now: float) -> None:
        """Note that a request with these fields met an outage: a trial ends, and the next one waits."""
        if self.refused(model, fields):
            self._no_trial_before[model] = now + TRIAL_PAUSE_S
            while len(self._no_trial_before) > MAX_MODELS:
                self._no_trial_before.pop(next(iter(self._no_trial_before)), None)

    def _learn(self, model: str, reason: str) -> None:
        """Ask for lists of numbers from now on; for all models, if base64 has worked for none."""
        log.warning("openai_field_dropped", model=model, field=ENCODING, reason=reason)
        if self._works:
            self._dropped.setdefault(model, set()).add(ENCODING)
        else:
            self._no_base64 = True
