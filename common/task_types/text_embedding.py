"""The task type `text_embedding`: a text and a model; the result is the vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from common.task_types import token_count
from common.task_types.task_type import Deferral, Outcome, Providers, TaskType

DEFAULT_MODEL = "text-embedding-3-small"
"""The model of a task that names none, such as older tasks of the reference API."""


class TextEmbeddingContent(msgspec.Struct):
    """The `content` of a `text_embedding` task."""

    text: str
    model: str = DEFAULT_MODEL


class TextEmbedding(TaskType[TextEmbeddingContent]):
    """The batch key is the model. `counts_tokens` tells for which models tokens are counted exactly."""

    name = "text_embedding"
    content = TextEmbeddingContent

    def __init__(self, counts_tokens: Callable[[str], bool] = lambda _: False) -> None:
        self._counts_tokens = counts_tokens

    def invalid(self, content: TextEmbeddingContent) -> str | None:
        """Refuse what no provider embeds, before it costs anything."""
        if not content.text.strip():
            return "content.text is empty"
        if not content.model.strip():
            return "content.model is empty"
        return None

    def key(self, content: TextEmbeddingContent) -> str:
        """The model."""
        return content.model

    def tokens(self, content: TextEmbeddingContent) -> int:
        """The number of bytes, which is free; with a token quota the exact count, because bytes would waste it."""
        exact = self._counts_tokens(content.model)
        return token_count.upper_bound(content.model, content.text) if exact else token_count.bound(content.text)

    def process(
        self, key: str, contents: Sequence[TextEmbeddingContent], providers: Providers
    ) -> Sequence[Outcome | Deferral]:
        """Embed all texts with their model."""
        return providers.embed(key, [content.text for content in contents])
