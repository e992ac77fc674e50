"""What the heartbeats say: who is alive, whether a task could be processed now, and what all processes have counted.

An instance is `waited for` until its first heartbeat, then `alive`, and `dead` when it has been silent for
`DEAD_AFTER_S`; the next heartbeat makes it alive again. This is decided at the moment of each question, so that a loop
that hangs shows as the monitor's own death.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from common.process.actions import Actions, Instant
from common.wire.messages import Family, Heartbeat, QuotaWindow
from common.wire.timing import DEAD_AFTER_S
from stages.monitor.totals import merge

EARLIER_BOOTS = 64
"""How many past boots of an instance are remembered, so that a heartbeat that comes late is not taken for a restart."""


class Seen(NamedTuple):
    """The last heartbeat of an instance."""

    beat: Heartbeat
    received: float
    """Monotonic seconds."""
    earlier: tuple[str, ...] = ()
    """The boots that came before this one, the latest last."""
    restarts: int = 0
    """How often it has come back since the monitor runs."""


@dataclass(frozen=True)
class View:
    """What is known at one moment; never changed, so that any thread may read it."""

    expected: Sequence[str]
    """The instances that must be alive."""
    started: Instant
    """When the monitor started."""
    seen: Mapping[str, Seen] = field(default_factory=dict)
    past: Sequence[Family] = ()
    """What the boots that are over have counted."""

    def age(self, instance: str, now: Instant) -> float | None:
        """Seconds since its last heartbeat; None before the first."""
        seen = self.seen.get(instance)
        return now.mono - seen.received if seen else None

    def alive(self, instance: str, now: Instant) -> bool:
        """Whether it has been heard of lately."""
        age = self.age(instance, now)
        return age is not None and age <= DEAD_AFTER_S

    def missing(self, now: Instant) -> list[str]:
        """Say for each expected instance that is not alive what is known of it; empty when the service is healthy."""
        return [self._absence(instance, now) for instance in self.expected if not self.alive(instance, now)]

    def obstacles(self, now: Instant) -> list[str]:
        """Say why no task could be processed now; empty when one could.

        Embedders stand in for each other: one that is blocked is no obstacle while another is ready.
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
        """Say what is amiss, or under way, although tasks go on: a missing model, or a download and how far it is."""
        told = (seen.beat.facts.get("notices", ()) for name, seen in self.seen.items() if self.alive(name, now))
        return sorted({notice for notices in told for notice in notices})

    def families(self, catalogue: Sequence[Family], now: Instant) -> list[Family]:
        """Merge all metrics: those of the catalogue first, with or without samples."""
        processes = [(seen.beat.metrics, self.alive(name, now)) for name, seen in sorted(self.seen.items())]
        return merge([(catalogue, True), (self.past, False), *processes])

    def windows(self) -> list[QuotaWindow]:
        """The quota windows, as the rate limiter told of them last."""
        seen = self.seen.get("rate_limiter")
        return seen.beat.windows if seen else []

    def _absence(self, instance: str, now: Instant) -> str:
        age = self.age(instance, now)
        if age is not None:
            return f"{instance} is dead: no heartbeat for {age:.0f} s; see `supervisorctl status` and its log"
        waited = now.mono - self.started.mono
        if waited <= DEAD_AFTER_S:
            return f"waiting for the first heartbeat of {instance}"
        return f"{instance} has not been heard of in the {waited:.0f} s since the monitor started; is it running?"


class Publish(NamedTuple):
    """Answer from this view from now on."""

    view: View


class Monitor:
    """Keeps the view up to date."""

    def __init__(self, expected: Sequence[str], now: Instant) -> None:
        self.view = View(tuple(expected), now)

    def on_heartbeat(self, beat: Heartbeat, now: Instant) -> Actions:
        """Take note; when it is from a new boot, keep what the one before has counted."""
        view = self.view
        before = view.seen.get(beat.instance)
        past = view.past
        if before is None:
            latest = Seen(beat, now.mono)
        elif beat.boot_id in before.earlier:
            return []
        elif beat.boot_id == before.beat.boot_id:
            latest = before._replace(beat=beat, received=now.mono)
        else:
            earlier = (*before.earlier, before.beat.boot_id)[-EARLIER_BOOTS:]
            latest = Seen(beat, now.mono, earlier, before.restarts + 1)
            past = merge([(past, False), (before.beat.metrics, False)])
        self.view = replace(view, seen={**view.seen, beat.instance: latest}, past=past)
        return [Publish(self.view)]
