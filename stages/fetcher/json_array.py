"""Cutting a JSON array of any size into its elements, in bounded memory, whatever is in them.

Up to `SLICE` bytes are decoded at a time. A longer array is cut at its last comma that is in no element, which is found
by counting brackets outside of texts. Where the decoder objects to what it is given (half a surrogate pair, nesting of
a thousand levels, bytes that are no UTF-8), the same count cuts the elements apart, and only the bad one is in trouble.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from common.failures.errors import Transient

SLICE = 4 * 2**20
"""Bytes decoded at a time; a single element may be longer, up to `LARGEST_ELEMENT`."""
LARGEST_ELEMENT = 64 * 2**20
"""Bytes; an element that has not ended by then is no task."""
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that it cannot take."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{}",]', re.DOTALL)
"""A whole text, or one character that opens, closes or parts something; a lone `"` begins a text not yet ended."""
_QUOTE = ord('"')
_OPENING, _CLOSING = b"[{", b"]}"


def elements(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a JSON array into its elements; raise `Transient` if it is none (HTML from a proxy, an error object)."""
    array = _Array()
    for chunk in chunks:
        array.rest += chunk
        if array.begun() and len(array.rest) >= SLICE:
            yield from array.slice()
    if not array.begun():
        raise Transient("GET pending answered an empty body")
    yield from array.last()


class _Array:
    """What has come of the array and is not cut off yet; it begins with the bracket that opens it."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self._scanned = 0
        self._depth = 0
        self._commas: list[int] = []
        """Where an element ends and the next begins."""
        self._ended = False

    def begun(self) -> bool:
        """Whether anything has come; raise `Transient` if it is no array."""
        if self.rest[:1] == b"[":
            return True
        self.rest = self.rest.lstrip()
        if not self.rest or self.rest[:1] == b"[":
            return bool(self.rest)
        first = self.rest[:1].decode("ascii", "replace")
        raise Transient(f"GET pending answered no JSON array (it begins with {first!r}, {len(self.rest)} bytes so far)")

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
        if len(self.rest) > LARGEST_ELEMENT:
            raise Transient(f"GET pending answered an element of more than {LARGEST_ELEMENT // 2**20} MB")

    def last(self) -> Iterable[bytes]:
        """All that is left."""
        found = _decoded(bytes(self.rest))
        if found is not None:
            return found
        self._scan()
        if not self._ended or self.rest[self._scanned :].strip():
            raise Transient(f"GET pending answered broken JSON ({len(self.rest)} bytes at its end)")
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
    """Cut the array with the decoder, which is fast; None if it objects to something."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(array, type=list[msgspec.Raw])]
    except UNDECODABLE:
        return None


def _pieces(array: bytes, commas: list[int]) -> list[bytes]:
    """Cut the array at these commas, whatever is between them."""
    starts, ends = [0, *commas], [*commas, len(array) - 1]
    return [array[start + 1 : end].strip() for start, end in zip(starts, ends, strict=True)]
