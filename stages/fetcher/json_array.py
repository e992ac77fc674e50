"""Cuts a JSON array of any size into its elements, in bounded memory, even if some elements are invalid.

Up to `SLICE_BYTES` are decoded at a time. A longer array is cut at the last comma between two elements, which is found
by counting brackets outside of strings. If the decoder refuses a slice (half a surrogate pair, a thousand levels of
nesting, invalid UTF-8), the same count cuts the elements apart, so that only the invalid element is affected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from common.failures.errors import Transient

SLICE_BYTES = 4 * 2**20
"""Decoded at a time; a single element may be longer, up to `LARGEST_ELEMENT_BYTES`."""
LARGEST_ELEMENT_BYTES = 64 * 2**20
"""An element that is longer than this makes the page unreadable."""
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that it cannot decode."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{}",]', re.DOTALL)
"""A whole string, or one bracket or comma; a lone `"` begins a string that has not ended yet."""
_QUOTE = ord('"')
_OPENING, _CLOSING = b"[{", b"]}"


def elements(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the elements; raise `Transient` if the body is not an array (HTML of a proxy, an error object)."""
    array = _Array()
    for chunk in chunks:
        array.rest += chunk
        if array.has_begun() and len(array.rest) >= SLICE_BYTES:
            yield from array.slice()
    if not array.has_begun():
        raise Transient("the response to GET pending has an empty body")
    yield from array.last()


class _Array:
    """The part of the array that has arrived and is not cut off yet; it begins with the opening bracket."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self._scanned = 0
        self._depth = 0
        self._commas: list[int] = []
        """Positions in `rest` at which one element ends and the next begins."""
        self._ended = False

    def has_begun(self) -> bool:
        """Whether anything has arrived; raise `Transient` if it is not an array."""
        if self.rest[:1] == b"[":
            return True
        self.rest = self.rest.lstrip()
        if not self.rest or self.rest[:1] == b"[":
            return bool(self.rest)
        first = self.rest[:1].decode("ascii", "replace")
        raise Transient(f"the response to GET pending is not a JSON array (it begins with {first!r})")

    def slice(self) -> Iterator[bytes]:
        """Cut off the elements that have ended."""
        self._scan()
        if self._commas:
            end = self._commas.pop()
            ended = bytes(self.rest[:end]) + b"]"
            yield from _decoded(ended) or _pieces(ended, self._commas)
            self.rest[: end + 1] = b"["
            self._scanned -= end
            self._commas = []
        if len(self.rest) > LARGEST_ELEMENT_BYTES:
            raise Transient(f"an element of GET pending is longer than {LARGEST_ELEMENT_BYTES // 2**20} MB")

    def last(self) -> Iterable[bytes]:
        """Cut all that is left, when the body has ended."""
        found = _decoded(bytes(self.rest))
        if found is not None:
            return found
        self._scan()
        if not self._ended or self.rest[self._scanned :].strip():
            raise Transient(f"the response to GET pending is broken JSON (in its last {len(self.rest)} bytes)")
        return _pieces(bytes(self.rest[: self._scanned]), self._commas)

    def _scan(self) -> None:
        for match in [] if self._ended else _TOKEN.finditer(self.rest, self._scanned):
            start, first = match.start(), self.rest[match.start()]
            if first == _QUOTE:
                if match.end() - start == 1:
                    self._scanned = start
                    return
            elif first in _OPENING:
                self._depth += 1
            elif first in _CLOSING:
                self._depth -= 1
                if not self._depth:
                    self._scanned, self._ended = match.end(), True
                    return
            elif self._depth == 1:
                self._commas.append(start)
        if not self._ended:
            self._scanned = len(self.rest)


def _decoded(array: bytes) -> list[bytes] | None:
    """Cut the array with the decoder, which is fast; None if the decoder refuses it."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(array, type=list[msgspec.Raw])]
    except UNDECODABLE:
        return None


def _pieces(array: bytes, commas: list[int]) -> list[bytes]:
    """Cut the array at these commas, without looking at what is between them."""
    starts, ends = [0, *commas], [*commas, len(array) - 1]
    return [array[start + 1 : end].strip() for start, end in zip(starts, ends, strict=True)]
