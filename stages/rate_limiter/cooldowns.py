"""The cooldowns that providers ask for (`retry-after`, `x-ratelimit-*`): one embedder hears of one, all obey it.

An embedder reports a cooldown in its next `Ready`, within a tenth of a second. The rate limiter tells all other
embedders, and those that start later. The same is done with what an embedder learned from refusals that are not about a
text: a used-up budget, or a model that the provider does not have (`openai bge-m3`, `openai *` for all models). So one
embedder probes for all. What an embedder concludes from an outage is not shared: its own network may be broken, and
then the others can go on.

A provider that asks for a cooldown counts requests. While it does, and for a while afterwards, each batch is as large
as it may be: many small requests would only be refused again.
"""

from __future__ import annotations

from collections.abc import Mapping

SAME_WITHIN_S = 0.1
"""Two embedders may report one cooldown with ends that differ by this much."""
SAVE_REQUESTS_S = 60.0
"""How long requests are saved after a cooldown: providers count them by the minute."""


MAX_COOLDOWNS = 1000
"""Number of cooldowns that are remembered: tasks may name any number of models that do not exist."""


class CooldownBoard:
    """The cooldowns of all providers, by name, and those of single models (seconds since the epoch)."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def report(self, reported: Mapping[str, float]) -> dict[str, float]:
        """Take what an embedder reports; returns the cooldowns that are new, for the other embedders."""
        new = {name: until for name, until in reported.items() if until > self._until.get(name, 0.0) + SAME_WITHIN_S}
        self._until.update(new)
        while len(self._until) > MAX_COOLDOWNS:
            del self._until[min(self._until, key=self._until.__getitem__)]
        return new

    def in_force(self, wall: float) -> dict[str, float]:
        """The cooldowns that an embedder which starts now must know."""
        return {name: until for name, until in self._until.items() if until > wall}

    def saves_requests(self, wall: float) -> bool:
        """Whether batches should be as large as possible."""
        return any(wall < until + SAVE_REQUESTS_S for name, until in self._until.items() if " " not in name)
