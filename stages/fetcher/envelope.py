"""Reads one element of a page: everything about a task but its content, which only its type understands.

The usual form is decoded by type, which is fast. An element that does not fit is read leniently: `element_shapes` knows
the other forms in which APIs write an id and a date. What cannot be read even then is described by its key, without
its text.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

from stages.fetcher import element_shapes
from stages.fetcher.json_array import UNDECODABLE

LONGEST_ID_BYTES = 500
"""LMDB's keys are at most 511 bytes long."""


class Unreadable(NamedTuple):
    """An element that cannot be read, and why."""

    reason: str
    """`malformed` or `no_id`, as in the metric."""
    key: str
    """The key whose value cannot be read; empty if it is the whole element."""
    problem: str
    """In words, without any text of the element."""
    position: int = 0
    """The place of the element in its page: 1 is the first. If there are several like it, of the first of them."""
    alike: int = 1
    """How many elements of the page have the same problem."""

    def seen_at(self, position: int, before: Unreadable | None) -> Unreadable:
        """Return this element of a page, together with those before it that have the same problem."""
        return self._replace(position=position) if before is None else before._replace(alike=before.alike + 1)


class Envelope(msgspec.Struct):
    """The part of an element that is read before its type is known. NestJS with Mongoose sends `_id`."""

    type: str
    mongo_id: str | None = msgspec.field(name="_id", default=None)
    plain_id: str | None = msgspec.field(name="id", default=None)
    content: msgspec.Raw = msgspec.Raw(b"null")
    created_at: str | float | None = msgspec.field(name="createdAt", default=None)
    state: str | None = None
    """None: pending."""

    @property
    def task_id(self) -> str:
        """The element's `_id`, otherwise its `id`; empty if it has neither."""
        return self.mongo_id or self.plain_id or ""


class _Loose(msgspec.Struct):
    """An element with values of any form."""

    type: Any = None
    mongo_id: Any = msgspec.field(name="_id", default=None)
    plain_id: Any = msgspec.field(name="id", default=None)
    content: msgspec.Raw = msgspec.Raw(b"null")
    created_at: Any = msgspec.field(name="createdAt", default=None)
    state: Any = None


_decode_usual = msgspec.json.Decoder(Envelope).decode
_decode_loose = msgspec.json.Decoder(_Loose).decode


def read_envelope(raw: bytes) -> Envelope | Unreadable:
    """Read an element, in its usual form or in another one."""
    found = _read(raw)
    if isinstance(found, Unreadable):
        return found
    task_id = found.task_id
    if not task_id:
        return Unreadable("no_id", "_id", "it has no id that can be sent back, neither in `_id` nor in `id`")
    if len(task_id.encode()) > LONGEST_ID_BYTES:
        return Unreadable("no_id", "_id", f"the id is longer than {LONGEST_ID_BYTES} bytes")
    return found


def created_seconds(envelope: Envelope) -> float:
    """When the task was created, in seconds since the epoch; infinity if the API does not say it readably."""
    return element_shapes.created_at(envelope.created_at)


def _read(raw: bytes) -> Envelope | Unreadable:
    try:
        return _decode_usual(raw)
    except msgspec.ValidationError:
        return _lenient(raw)
    except UNDECODABLE:
        repaired = _repaired(raw)
    try:
        return _decode_usual(repaired)
    except msgspec.ValidationError:
        return _lenient(repaired)
    except UNDECODABLE:
        return Unreadable("malformed", "", "it is not valid JSON")


def _lenient(raw: bytes) -> Envelope | Unreadable:
    try:
        loose = _decode_loose(raw)
    except msgspec.ValidationError:
        return Unreadable("malformed", "", f"it is {_form(_first_value(raw))}, not an object")
    except UNDECODABLE:
        return Unreadable("malformed", "", "it is not valid JSON")
    for key, value in (("type", loose.type), ("state", loose.state)):
        if not isinstance(value, str) and (key == "type" or value is not None):
            return Unreadable("malformed", key, f"`{key}` is {_form(value)}, not a string")
    created = element_shapes.created_at(loose.created_at)
    return Envelope(
        type=loose.type,
        mongo_id=element_shapes.task_id({"_id": loose.mongo_id, "id": loose.plain_id}),
        content=loose.content,
        created_at=loose.created_at if isinstance(loose.created_at, str) else created,
        state=loose.state,
    )


def _first_value(raw: bytes) -> object:
    """A value of the same form as the JSON text, without the rest of it."""
    forms: dict[bytes, object] = {b'"': "", b"[": [], b"{": {}, b"n": None, b"t": True, b"f": False}
    return forms.get(raw.lstrip()[:1], 0)


def _form(value: object) -> str:
    """What a value is, in words."""
    if value is None:
        return "missing or null"
    if isinstance(value, bool):
        return "true or false"
    for kind, words in ((str, "a string"), (int | float, "a number"), (list, "an array")):
        if isinstance(value, kind):
            return words
    return "an object"


def _repaired(raw: bytes) -> bytes:
    """Replace half surrogate pairs and invalid UTF-8 with U+FFFD, as JavaScript's TextEncoder does.

    JavaScript's `substring` can cut a text in the middle of an emoji, and `JSON.stringify` sends the half that is left.
    Returns nothing if this is not JSON even then.
    """
    try:
        parsed = json.loads(raw.decode(errors="replace"))
    except (ValueError, RecursionError):
        return b""
    text = json.dumps(parsed, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
