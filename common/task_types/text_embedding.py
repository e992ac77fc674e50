"""`text_embedding`: a text and the model that embeds it; the result is the vector."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from common.task_types import Deferral, Embedder, Outcome, TaskType

DEFAULT_MODEL = "text-embedding-3-small"
"""For a task that names none, as the reference API's older tasks do."""


class TextEmbeddingContent(msgspec.Struct):
    """The `content` of a task."""

    text: str
    model: str = DEFAULT_MODEL


class TextEmbedding(TaskType[TextEmbeddingContent]):
    """Batches by model; a token is at least one byte, so the UTF-8 length is never too low an estimate."""

    name = "text_embedding"
    content = TextEmbeddingContent

    def invalid(self, content: TextEmbeddingContent) -> str | None:
        """Refuse what no provider embeds, before anything is paid."""
        if not content.text.strip():
            return "content.text is empty"
        if not content.model.strip():
            return "content.model is empty"
        return None

    def key(self, content: TextEmbeddingContent) -> str:
        """The model."""
        return content.model

    def tokens(self, content: TextEmbeddingContent) -> int:
        """UTF-8 bytes bound tokens from above."""
        return len(content.text.encode())

    def process(
        self, key: str, contents: Sequence[TextEmbeddingContent], embedder: Embedder
    ) -> Sequence[Outcome | Deferral]:
        """Embed all the texts with their one model."""
        return embedder.embed(key, [content.text for content in contents])
