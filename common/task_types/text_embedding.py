"""`text_embedding`: a text and the model that embeds it; the result is the vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from common.task_types import Deferral, Outcome, Providers, TaskType, token_count

DEFAULT_MODEL = "text-embedding-3-small"
"""For a task that names none, as the reference API's older tasks do."""


class TextEmbeddingContent(msgspec.Struct):
    """The `content` of a task."""

    text: str
    model: str = DEFAULT_MODEL


class TextEmbedding(TaskType[TextEmbeddingContent]):
    """Batches by model; `counts_tokens` tells for which models the tokens are worth being counted."""

    name = "text_embedding"
    content = TextEmbeddingContent

    def __init__(self, counts_tokens: Callable[[str], bool] = lambda _: False) -> None:
        self._counts_tokens = counts_tokens

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
        """The bound that costs nothing; under a token quota, which it would waste, an exact count if there is one."""
        exact = self._counts_tokens(content.model)
        return token_count.most_of(content.model, content.text) if exact else token_count.bound(content.text)

    def process(
        self, key: str, contents: Sequence[TextEmbeddingContent], providers: Providers
    ) -> Sequence[Outcome | Deferral]:
        """Embed all the texts with their one model."""
        return providers.embed(key, [content.text for content in contents])
