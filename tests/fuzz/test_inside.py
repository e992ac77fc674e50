"""Decoding without a network: pages of the API, and the frames between the processes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from common.api.patch_queue import CONNECTIONS
from common.failures.errors import Transient
from common.task_types import registered
from common.wire.messages import Heartbeat, Message, decode, encode
from stages.fetcher.page import Reader
from tests.publisher.publishing import Publishing
from tests.samples import names, tasks

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["_id", "id", "type", "state", "content", "createdAt", "__v"])
ODD = st.dictionaries(FIELDS, JSON | st.sampled_from(["text_embedding", "pending"]), max_size=6) | JSON
READER = Reader(registered())


def good(number: int) -> dict[str, Any]:
    content = {"text": f"text {number}", "model": "m"}
    return {"_id": f"good-{number}", "type": "text_embedding", "state": "pending", "content": content}


@settings(max_examples=300, deadline=None)
@given(st.lists(ODD, max_size=6), st.integers(1, 40))
def test_a_malformed_element_hides_no_valid_one(odd: list[Any], size: int) -> None:
    page: list[Any] = []
    for number, element in enumerate([*odd, None]):
        page += [element, good(number)]
    body = json.dumps(page).encode()
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    found = READER.read(chunks, 0.0, 1000, ())
    wanted = {f"good-{number}" for number in range(len(odd) + 1)}
    assert wanted <= {candidate.task.id for candidate in found.candidates}
    assert found.elements == len(page)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"[" + tail + b"]"))
def test_any_bytes_give_a_page_or_a_transient_error(body: bytes) -> None:
    with contextlib.suppress(Transient):
        READER.read([body], 0.0, 1000, ())


VALID = [encode(tasks(*names(3))), encode(Heartbeat("s", "i", "b", 1, 0.0, [], {"a": [1, {"b": None}]}))]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Any bytes, or a valid frame with some of its bytes changed, cut or doubled."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    frame = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 4))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))]) + draw(st.binary(max_size=5))


@settings(max_examples=2000, deadline=None)
@given(frames())
def test_any_frame_decodes_or_raises_the_error_that_the_loop_expects(frame: bytes) -> None:
    try:
        found = decode(frame)
    except msgspec.MsgspecError:
        return
    assert isinstance(found, Message)


def test_a_deeply_nested_frame_is_rejected() -> None:
    deep = b"\x91" * 100_000
    facts = bytes(VALID[1]).replace(b"\xa1a", b"\xa1a" + deep)
    for frame in (deep, facts, b"\x81" * 100_000):
        try:
            decode(frame)
        except msgspec.MsgspecError:
            continue
        raise AssertionError("it decoded")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999), st.floats(0, 1e9)), min_size=1, max_size=60))
def test_no_result_is_lost_whatever_the_api_responds(answered: list[tuple[int, float]]) -> None:
    """Each result is in the outbox, is a dead letter, or was accepted by the API, or its task no longer exists."""
    publisher = Publishing()
    ids = names(2 * CONNECTIONS)
    publisher.results(*ids)
    ended: set[str] = set()
    for status, retry_after in answered:
        for task_id in list(publisher.patched):
            publisher.respond(status, task_id, retry_after=retry_after)
            if 200 <= status < 300 or status == 404:
                ended.add(task_id)
        publisher.after(30).tick()
        publisher.token(f"token {status}")
    kept = set(publisher.state.entries) | set(publisher.state.dead)
    assert set(ids) - ended <= kept
