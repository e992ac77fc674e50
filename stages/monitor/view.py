"""What the monitor knows at one moment, and what follows from it: who is alive, what blocks the tasks, all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from common.process.actions import Instant
from common.wire.messages import Heartbeat
from common.wire.parts import Family, QuotaWindow
from common.wire.timing import DEAD_AFTER_S
from stages.monitor.totals import merge


class InstanceRecord(NamedTuple):
    """The last heartbeat of an instance."""

    beat: Heartbeat
    """The heartbeat itself."""
    received_s: float
    """When it was received (monotonic seconds)."""
    earlier: tuple[str, ...] = ()
    """The boots before this one, the latest last."""
    restarts: int = 0
    """How often it has restarted since the monitor runs."""


@dataclass(frozen=True)
class View:
    """What is known at one moment; immutable, so that any thread may read it."""

    expected: Sequence[str]
    """The instances that must be alive."""
    started: Instant
    """When the monitor started."""
    seen: Mapping[str, InstanceRecord] = field(default_factory=dict)
    """Instance → its record."""
    past: Sequence[Family] = ()
    """The metrics of boots that are over."""

    def age_s(self, instance: str, now: Instant) -> float | None:
        """Seconds since its last heartbeat; None before the first."""
        seen = self.seen.get(instance)
        return now.mono - seen.received_s if seen else None

    def alive(self, instance: str, now: Instant) -> bool:
        """Whether a heartbeat came recently."""
        age_s = self.age_s(instance, now)
        return age_s is not None and age_s <= DEAD_AFTER_S

    def shown(self, now: Instant) -> list[str]:
        """The instances that an operator should see: those that must be alive, and any other that is."""
        others = {instance for instance in self.seen if self.alive(instance, now)}
        return sorted({*self.expected, *others})

    def missing(self, now: Instant) -> list[str]:
        """What is known of each expected instance that is not alive; empty when the service is healthy."""
        return [self._absence(instance, now) for instance in self.expected if not self.alive(instance, now)]

    def obstacles(self, now: Instant) -> list[str]:
        """Why no task could be processed now; empty when one could.

        Embedders replace each other: a blocked one is not an obstacle while another is ready.
        """
        embedders = {name for name, seen in self.seen.items() if seen.beat.stage == "embedder"}
        blocked = {name: seen.beat.blockers for name, seen in self.seen.items() if self.alive(name, now)}
        one_ready = any(not blocked[name] for name in embedders & blocked.keys())
        return self.missing(now) + [
            f"{name}: {blocker}"
            for name, blockers in sorted(blocked.items())
            if not (one_ready and name in embedders)
            for blocker in blockers
        ]

    def notices(self, now: Instant) -> list[str]:
        """What is wrong or in progress although tasks are processed: a missing model, or the progress of a download."""
        told = (seen.beat.facts.get("notices", ()) for name, seen in self.seen.items() if self.alive(name, now))
        return sorted({notice for notices in told for notice in notices})

    def families(self, catalogue: Sequence[Family], now: Instant) -> list[Family]:
        """Merge all metrics: those of the catalogue first, with or without samples."""
        processes = [(seen.beat.metrics, self.alive(name, now)) for name, seen in sorted(self.seen.items())]
        return merge([(catalogue, True), (self.past, False), *processes])

    def windows(self) -> list[QuotaWindow]:
        """The quota windows, as the rate limiter reported them last."""
        seen = self.seen.get("rate_limiter")
        return seen.beat.windows if seen else []

    def _absence(self, instance: str, now: Instant) -> str:
        age_s = self.age_s(instance, now)
        if age_s is not None:
            return f"{instance} is dead: no heartbeat for {age_s:.0f} s; see `supervisorctl status` and its log"
        waited_s = now.mono - self.started.mono
        if waited_s <= DEAD_AFTER_S:
            return f"waiting for the first heartbeat of {instance}"
        return f"{instance} has sent no heartbeat in the {waited_s:.0f} s since the monitor started; is it running?"
