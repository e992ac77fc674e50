"""The task types that can be processed: one class in one file each, and one line in `registered`.

Another Python package adds a type with an entry point in the group `ai_task_processor.task_types`; see
`docs/extending.md`. The fetcher uses a type to validate a task and to estimate its cost; the embedder to process it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from common.task_types.task_type import Deferral, Outcome, Providers, TaskType
from common.task_types.text_embedding import DEFAULT_MODEL, TextEmbedding

__all__ = ["ENTRY_POINTS", "Deferral", "Outcome", "Providers", "TaskType", "registered"]

ENTRY_POINTS = "ai_task_processor.task_types"
"""The group of entry points with which other packages add task types."""


def registered(
    counts_tokens: Callable[[str], bool] = lambda _: False, default_model: str = DEFAULT_MODEL
) -> Mapping[str, TaskType[Any]]:
    """All task types by name: the built-in ones, and those of other installed packages.

    `counts_tokens` tells whether a token quota is in force for a model (`Settings.counts_tokens`). `default_model` is
    DEFAULT_EMBEDDING_MODEL.
    """
    built_in: tuple[TaskType[Any], ...] = (TextEmbedding(counts_tokens, default_model),)
    others = (point.load()() for point in entry_points(group=ENTRY_POINTS))
    return {task_type.name: task_type for task_type in (*built_in, *others)}
