"""The preflight checks the texts of a batch before anything is sent, and merges identical ones.

A text that is refused here costs nothing. A provider would refuse it too, and the whole request together with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from common.task_types import token_count
from common.task_types.content_guard import guarded
from common.wire.messages import Failure


class Preflight(NamedTuple):
    """The result of the preflight."""

    wanted: dict[str, list[int]]
    """Text to embed → its positions in the batch."""
    refused: dict[int, Failure]
    """Position in the batch → why the text is refused."""


def run_preflight(model: str, texts: Sequence[str], *, truncate: bool) -> Preflight:
    """Check each text. `truncate` cuts a text that is too long at a token boundary, instead of refusing it."""
    wanted: dict[str, list[int]] = {}
    refused: dict[int, Failure] = {}
    limit = token_count.limit_of(model)
    for position, text in enumerate(texts):
        kept = guarded("text_embedding", partial(_checked, model, text, limit, truncate=truncate))
        if isinstance(kept, Failure):
            refused[position] = kept
        else:
            wanted.setdefault(kept, []).append(position)
    return Preflight(wanted, refused)


def _checked(model: str, text: str, limit: int | None, *, truncate: bool) -> str | Failure:
    """The text to embed, which may be truncated, or why it is refused."""
    failure = _refusal(text)
    if failure is not None:
        return failure
    if limit is not None and len(text) * 4 > limit and (excess := token_count.excess(text, limit)):
        return token_count.truncated(text, limit) if truncate else _too_long(model, excess, limit)
    return text


def _refusal(text: str) -> Failure | None:
    if not isinstance(text, str):
        return Failure("invalid_text", f"the text is not a string but {type(text).__name__}")  # type: ignore[unreachable]
    if not text or text.isspace():
        return Failure("empty_text", "the text is empty")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return Failure("invalid_text", "the text is not valid Unicode: it has half of a surrogate pair")
    return None


def _too_long(model: str, excess: int, limit: int) -> Failure:
    sentence = f"the text has {excess} tokens or more, {model} takes {limit}; TRUNCATE_LONG_TEXTS=true would cut it"
    return Failure("text_too_long", sentence)
