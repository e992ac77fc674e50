"""How many tokens a text has: a free upper bound, and an exact count where the bound is not enough.

In every tokenizer that can encode any text, a token has at least one byte. So the number of UTF-8 bytes is an upper
bound of the number of tokens. An exact count is worth its time in three cases: a text of more than 8,192 bytes may be
too long for OpenAI (`excess`); a request may be too large (the embedder's learned caps); and with a quota, bytes would
reserve four times what is used (`upper_bound`). The count is exact for OpenAI's embedding models, which use
`cl100k_base`. The tokenizers of other models are not known, and some produce more tokens than cl100k_base, so the bound
is used for them.

`cl100k.py` counts about 16 MB/s, or 2 MB/s for a text without spaces, in bounded pieces.
"""

from __future__ import annotations

from common.task_types.cl100k import count, truncated

__all__ = ["CL100K", "LONGEST_TOKEN_BYTES", "bound", "count", "excess", "limit_of", "truncated", "upper_bound"]

LONGEST_TOKEN_BYTES = 128
"""The length of the longest token of cl100k_base: a run of spaces."""
CL100K = frozenset({"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"})
"""The models with this tokenizer: https://github.com/openai/tiktoken/blob/main/tiktoken/model.py"""


def limit_of(model: str) -> int | None:
    """The most tokens that the model accepts in one text; None if only its provider knows."""
    return 8192 if model.startswith("text-embedding-") else None


def bound(text: str) -> int:
    """The most tokens that the text can have with any model: its UTF-8 bytes."""
    return len(text.encode())


def upper_bound(model: str, text: str) -> int:
    """The most tokens that the model can report for the text: the exact count if possible, else the bound."""
    size = bound(text)
    if model not in CL100K:
        return size
    limit = limit_of(model) or size
    # a text over the limit is cut to the limit, or never sent
    return limit if size > limit * LONGEST_TOKEN_BYTES else min(count(text), limit)


def excess(text: str, limit: int) -> int:
    """The number of tokens if it is more than `limit`, else 0. For an extremely long text, a lower bound of it."""
    if len(text) * 4 <= limit:  # a character has at most four bytes
        return 0
    size = bound(text)
    if size <= limit:
        return 0
    if size > limit * LONGEST_TOKEN_BYTES:
        return -(-size // LONGEST_TOKEN_BYTES)
    tokens = count(text)
    return tokens if tokens > limit else 0
