"""Cuts a JSON array of any size into its elements, in bounded memory, even if some elements are invalid.

Up to `SLICE_BYTES` are decoded at a time. A longer array is cut at the last comma between two elements, which is found
by counting brackets outside of strings. If the decoder refuses a slice (half a surrogate pair, a thousand levels of
nesting, invalid UTF-8), the same count cuts the elements apart, so that only the invalid element is affected.

Some APIs wrap the array in a page object, such as `{"total": 3, "data": [...]}`. Then the array is found by its key,
and what stands before and behind it is not used. An empty body is an empty page: some servers send it for no elements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import msgspec

from common.failures.errors import Transient

SLICE_BYTES = 4 * 2**20
"""Decoded at a time; a single element may be longer, up to `LARGEST_ELEMENT_BYTES`."""
LARGEST_ELEMENT_BYTES = 64 * 2**20
"""An element that is longer than this makes the page unreadable."""
PAGE_KEYS = frozenset({b'"data"', b'"items"', b'"results"', b'"docs"'})
"""The keys of the array in a page object."""
LONGEST_PREFIX_BYTES = 64 * 1024
"""The array of a page object begins within this many bytes."""
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that it cannot decode."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{}",]', re.DOTALL)
"""A whole string, or one bracket or comma; a lone `"` begins a string that has not ended yet."""
_ARRAY_FOLLOWS = re.compile(rb"\s*:\s*\[")
_QUOTE = ord('"')
_OPENING, _CLOSING = b"[{", b"]}"


def elements(chunks: Iterable[bytes], on_object: Callable[[str], None] = lambda _: None) -> Iterator[bytes]:
    """Yield the elements; raise `Transient` if the body is neither an array nor a page object (HTML, an error object).

    `on_object` is called with the key of the array if the body is a page object.
    """
    array = _Array(on_object)
    for chunk in chunks:
        array.rest += chunk
        if array.has_begun() and len(array.rest) >= SLICE_BYTES:
            yield from array.slice()
    if array.has_begun():
        yield from array.last()
    elif array.rest:
        raise array.error()


class _Array:
    """The part of the array that has arrived and is not cut off yet; it begins with the opening bracket."""

    def __init__(self, on_object: Callable[[str], None]) -> None:
        self.rest = bytearray()
        self._on_object = on_object
        self._in_object = False
        self._scanned = 0
        self._depth = 0
        self._commas: list[int] = []
        """Positions in `rest` at which one element ends and the next begins."""
        self._ended = False

    def has_begun(self) -> bool:
        """Whether the array has begun; raise `Transient` if there is none."""
        if self.rest[:1] == b"[":
            return True
        self.rest = self.rest.lstrip()
        if self.rest[:1] == b"{":
            self._enter_object()
        if not self.rest or self.rest[:1] == b"[":
            return bool(self.rest)
        if self.rest[:1] != b"{" or len(self.rest) > LONGEST_PREFIX_BYTES:
            raise self.error()
        return False

    def error(self) -> Transient:
        """Why the body is not a page."""
        first = self.rest[:1].decode("ascii", "replace")
        return Transient(f"the response to GET pending is not a JSON array (it begins with {first!r})")

    def _enter_object(self) -> None:
        """Drop what is before the array of a page object, if its key has arrived."""
        depth = 0
        for match in _TOKEN.finditer(self.rest, 0, LONGEST_PREFIX_BYTES):
            token = match.group()
            if token in {b"{", b"["}:
                depth += 1
            elif token in {b"}", b"]"}:
                depth -= 1
            elif token == b'"' or not depth:
                return
            elif depth == 1 and token in PAGE_KEYS and (bracket := _ARRAY_FOLLOWS.match(self.rest, match.end())):
                self.rest = self.rest[bracket.end() - 1 :]  # a match keeps the old one from being cut in place
                self._in_object = True
                self._on_object(token.decode().strip('"'))
                return

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
        found = None if self._in_object else _decoded(bytes(self.rest))
        if found is not None:
            return found
        self._scan()
        behind = self.rest[self._scanned :].strip()
        if not self._ended or (behind[-1:] != b"}" if self._in_object else behind):
            raise Transient(f"the response to GET pending is broken JSON (in its last {len(self.rest)} bytes)")
        ended = bytes(self.rest[: self._scanned])
        found = _decoded(ended) if self._in_object else None
        return _pieces(ended, self._commas) if found is None else found

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
