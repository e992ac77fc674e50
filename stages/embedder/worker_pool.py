"""The worker pool processes batches: one thread for each slot, which calls the task type of the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from common.process import metrics
from common.task_types import Deferral, Outcome, TaskType
from common.task_types.content_guard import guarded
from common.wire import messages as m
from stages.embedder.actions import BatchProcessed, ProcessBatch
from stages.embedder.engine import EmbeddingEngine


class WorkerPool:
    """Processes batches in the background; each comes back as a `BatchProcessed` event."""

    def __init__(
        self,
        slots: int,
        task_types: Mapping[str, TaskType[Any]],
        engine: EmbeddingEngine,
        background: Callable[..., None],
    ) -> None:
        self._types = task_types
        self._engine = engine
        self._background = background
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="slot")

    def process(self, action: ProcessBatch) -> None:
        """Process a batch on a thread."""
        metrics.BATCH_SIZE.observe(len(action.batch.tasks))
        self._background(self._pool, self._process, action.batch)

    def close(self) -> None:
        """Wait for the threads. None is running when the stage is drained."""
        self._pool.shutdown()

    def _process(self, batch: m.Batch) -> BatchProcessed:
        kind = self._types[batch.type]
        charge = batch.charge if batch.limited else None
        session = self._engine.session(charge.requests if charge else None, charge.send_by if charge else 0.0)
        decoded = [guarded(batch.type, partial(kind.decode, task.content)) for task in batch.tasks]
        contents = [content for content in decoded if not isinstance(content, m.Failure)]
        given = kind.process(batch.key, contents, session) if contents else []
        if len(given) != len(contents):
            raise AssertionError(f"{batch.type} gave {len(given)} outcomes for {len(contents)} tasks")
        left = iter(given)
        outcomes = [content if isinstance(content, m.Failure) else next(left) for content in decoded]
        processed = _to_processed(batch, outcomes)
        processed.tokens, processed.requests = session.tokens, session.requests
        processed.reached_at = session.reached_at
        free = session.cached + session.refused + len(decoded) - len(contents)
        if free < 0 and processed.unsent:  # a canary was served, so not everything can be refunded
            processed.unsent = False
            processed.uncharged += len(processed.deferred)
        processed.uncharged = max(processed.uncharged + free, 0)
        return processed


def _to_processed(batch: m.Batch, outcomes: Sequence[Outcome | Deferral]) -> BatchProcessed:
    """Turn outcomes into results, and list the deferred tasks."""
    processed = BatchProcessed(batch.batch_id, [])
    unsent: list[str] = []
    for task, outcome in zip(batch.tasks, outcomes, strict=True):
        if isinstance(outcome, Deferral) and outcome.at_most:
            processed.requeue.setdefault(outcome.at_most, []).append(task.id)
            processed.uncharged += outcome.unsent
        elif isinstance(outcome, Deferral):
            processed.deferred.append(task.id)
            processed.until = max(processed.until, outcome.until)
            unsent += [task.id] if outcome.unsent else []
        elif isinstance(outcome, m.Failure):
            processed.results.append(m.Result(task.id, task.type, task.leased_at, failure=outcome))
        elif isinstance(outcome, bytes):
            processed.results.append(m.Result(task.id, task.type, task.leased_at, document=outcome))
        else:
            vector = np.ascontiguousarray(outcome, "<f4").tobytes()
            processed.results.append(m.Result(task.id, task.type, task.leased_at, vector=vector))
    processed.unsent = bool(unsent) and unsent == processed.deferred
    processed.uncharged += 0 if processed.unsent else len(unsent)
    return processed
