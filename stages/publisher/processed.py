"""What the metrics say about results that the API has accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from common.process import actions
from common.process.actions import Instant, Observe
from stages.publisher.actions import OutboxEntry


def count(entries: Iterable[OutboxEntry], now: Instant) -> Iterator[actions.Count | Observe]:
    """Count these results by type and state, and the time since their leases by type."""
    counts: Counter[tuple[str, str]] = Counter()
    durations: dict[str, list[float]] = {}
    for entry in entries:
        counts[entry.type, entry.state] += 1
        durations.setdefault(entry.type, []).append(max(0.0, now.wall - entry.leased_at))
    for (task_type, state), number in counts.items():
        yield actions.Count("ai_tasks_processed_total", (task_type, state), number)
    for task_type, values in durations.items():
        yield Observe("ai_task_processing_duration_seconds", (task_type,), values)
