"""Which texts of a batch are embedded at all: each once, however often it occurs; hopeless ones never.

What is refused here costs nothing. A provider would refuse it too, but the whole request with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from common.task_types import token_count
from common.wire.messages import Failure


class Sorted(NamedTuple):
    """The texts of a batch."""

    wanted: dict[str, list[int]]
    """What is to be embedded → where it is wanted in the batch."""
    refused: dict[int, Failure]
    """Where in the batch → why it is not."""


def sort_out(model: str, texts: Sequence[str], *, truncate: bool) -> Sorted:
    """Look at each text; `truncate` cuts one that is too long on a token boundary instead of refusing it."""
    wanted: dict[str, list[int]] = {}
    refused: dict[int, Failure] = {}
    limit = token_count.limit_of(model)
    for position, text in enumerate(texts):
        failure = _hopeless(text)
        if failure is not None:
            refused[position] = failure
            continue
        kept = text
        if limit is not None and len(text) * 4 > limit and (excess := token_count.excess(text, limit)):
            if not truncate:
                refused[position] = _too_long(model, excess, limit)
                continue
            kept = token_count.truncated(text, limit)
        wanted.setdefault(kept, []).append(position)
    return Sorted(wanted, refused)


def _hopeless(text: str) -> Failure | None:
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
