"""What the heartbeats say: which processes are alive, whether a task could be processed now, and all metrics.

An instance is `waited for` until its first heartbeat, then `alive`, and `dead` when it has been silent for
`DEAD_AFTER_S`; the next heartbeat makes it alive again. This is decided at the moment of each question, so that a loop
that hangs shows as the monitor's own death.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.process.actions import Actions, Instant
from common.wire.messages import Heartbeat
from stages.monitor.actions import AskExpected, ExpectedInstances, PublishView
from stages.monitor.totals import merge
from stages.monitor.view import InstanceRecord, View

EARLIER_BOOTS = 64
"""How many past boots of an instance are remembered, so that a late heartbeat does not count as a restart."""


QUESTION_INTERVAL_S = 5.0
"""While an expected instance is not alive, or another one is, the settings are read again this often."""


class Monitor:
    """The state; keeps the view up to date."""

    def __init__(self, expected: Sequence[str], now: Instant) -> None:
        self.view = View(tuple(expected), now)
        self._next_question_s = now.mono + QUESTION_INTERVAL_S
        """When to ask again which instances are expected (monotonic seconds)."""

    def on_tick(self, now: Instant) -> Actions:
        """Ask which instances are expected if others are alive: EMBEDDER_PROCESSES may have been changed."""
        view = self.view
        if now.mono < self._next_question_s or (not view.missing(now) and len(view.shown(now)) == len(view.expected)):
            return []
        self._next_question_s = now.mono + QUESTION_INTERVAL_S
        return [AskExpected()]

    def on_expected(self, event: ExpectedInstances, _: Instant) -> Actions:
        """Expect these instances from now on."""
        if tuple(event.instances) == tuple(self.view.expected):
            return []
        self.view = replace(self.view, expected=tuple(event.instances))
        return [PublishView(self.view)]

    def on_heartbeat(self, beat: Heartbeat, now: Instant) -> Actions:
        """Take the heartbeat into the view. If it is from a new boot, keep the metrics of the boot before."""
        view = self.view
        before = view.seen.get(beat.instance)
        past = view.past
        if before is None:
            latest = InstanceRecord(beat, now.mono)
        elif beat.boot_id in before.earlier:
            return []
        elif beat.boot_id == before.beat.boot_id:
            latest = before._replace(beat=beat, received_s=now.mono)
        else:
            earlier = (*before.earlier, before.beat.boot_id)[-EARLIER_BOOTS:]
            latest = InstanceRecord(beat, now.mono, earlier, before.restarts + 1)
            past = merge([(past, False), (before.beat.metrics, False)])
        self.view = replace(view, seen={**view.seen, beat.instance: latest}, past=past)
        return [PublishView(self.view)]
