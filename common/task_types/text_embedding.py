"""The task type `text_embedding`: a text and a model; the result is the vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from common.task_types import token_count
from common.task_types.task_type import Deferral, Outcome, Providers, TaskType

DEFAULT_MODEL = "text-embedding-3-small"
"""The default of DEFAULT_EMBEDDING_MODEL; older tasks of the reference API name no model."""
_decode_text = msgspec.json.Decoder(str).decode


class TextEmbeddingContent(msgspec.Struct):
    """The `content` of a `text_embedding` task. A plain string is read as the text."""

    text: str
    model: str | None = None
    """None: DEFAULT_EMBEDDING_MODEL."""


class TextEmbedding(TaskType[TextEmbeddingContent]):
    """The batch key is the model. `counts_tokens` tells for which models tokens are counted exactly.

    `default_model` is the model of a task that names none; if it is empty, such a task is invalid.
    """

    name = "text_embedding"
    content = TextEmbeddingContent

    def __init__(
        self, counts_tokens: Callable[[str], bool] = lambda _: False, default_model: str = DEFAULT_MODEL
    ) -> None:
        self._counts_tokens = counts_tokens
        self._default_model = default_model.strip()

    def decode(self, raw: bytes) -> TextEmbeddingContent:
        """Decode an object, or a plain string, which is the text."""
        return TextEmbeddingContent(_decode_text(raw)) if raw[:1] == b'"' else super().decode(raw)

    def invalid(self, content: TextEmbeddingContent) -> str | None:
        """Refuse what no provider embeds, before it costs anything."""
        if not content.text.strip():
            return "content.text is empty"
        if content.model is None and not self._default_model:
            return "the task names no model and DEFAULT_EMBEDDING_MODEL is empty; set content.model or that variable"
        if not self.key(content).strip():
            return "content.model is empty"
        return None

    def key(self, content: TextEmbeddingContent) -> str:
        """The model."""
        return self._default_model if content.model is None else content.model

    def tokens(self, content: TextEmbeddingContent) -> int:
        """The number of bytes, which is free; with a token quota the exact count, because bytes would waste it."""
        model = self.key(content)
        exact = self._counts_tokens(model)
        return token_count.upper_bound(model, content.text) if exact else token_count.bound(content.text)

    def process(
        self, key: str, contents: Sequence[TextEmbeddingContent], providers: Providers
    ) -> Sequence[Outcome | Deferral]:
        """Embed all texts with their model."""
        return providers.embed(key, [content.text for content in contents])
