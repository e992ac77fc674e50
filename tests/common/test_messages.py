"""Messages: encoding and decoding, bytes of older and newer versions, and invalid frames."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.wire import messages as m
from common.wire.parts import Family, QuotaWindow, Sample
from tests import samples

MESSAGES: list[m.Message] = [
    samples.tasks("a", "b"),
    m.Ready("embedder_00", "boot", "ipc:///in", 2, [m.HeldBatch("b1", "m", ["a", "b"])], {"m": 5.0}, {"openai": 5.0}),
    m.Batch("b1", "boot", "text_embedding", "model", [samples.task("a")]),
    m.ProviderCooldowns({"openai": 5.0}),
    m.Finished("embedder_00", "boot", "b1", 10, 1, ["b"], 5.0, True, 1),
    m.Results("b1", "ipc:///inbox", [samples.result("a"), samples.result("b", failure=m.Failure("x", "y"))], "boot"),
    m.Draining("embedder_00", "boot"),
    m.Stored("b1"),
    m.Published(["a"], ["b"], ["c"]),
    m.Holding("publisher", ["a"], ["b"], parked=["c"]),
    m.ApiReachable(),
    m.Deferred(["a"], 5.0, "quota", "*"),
    m.TokenRequest("ipc:///inbox", "fingerprint"),
    m.Token("secret", 5.0, "fingerprint"),
    m.DeadLetters(["a"], ["b"]),
    m.Heartbeat(
        "fetcher", "fetcher", "boot", 7, 5.0, ["no token"], {"leased": 1},
        [Family("x", "counter", "help", [Sample("x_total", {"a": "b"}, 1.0)])],
        [QuotaWindow("", "tasks", "minute", 1, 2, 1, 5.0)],
    ),
]  # fmt: skip


def sure(kind: type[m.Message]) -> int:
    """The number of required fields: those that the message has had from the beginning."""
    return sum(field.required for field in msgspec.structs.fields(kind))


def test_there_is_a_sample_of_every_message() -> None:
    assert {type(message) for message in MESSAGES} == set(get_args(m.AnyMessage))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_decoded_message_equals_the_encoded_one(message: m.Message) -> None:
    assert m.decode(m.encode(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_bytes_from_before_a_field_was_added_decode_with_its_default(message: m.Message) -> None:
    fields: list[Any] = msgspec.msgpack.decode(m.encode(message))
    for length in range(1 + sure(type(message)), len(fields)):
        old = m.decode(msgspec.msgpack.encode(fields[:length]))
        assert type(old) is type(message)
        for field in msgspec.structs.fields(type(message))[length - 1 :]:
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            assert getattr(old, field.name) == default


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_bytes_with_a_field_of_a_later_version_decode_without_it(message: m.Message) -> None:
    fields = msgspec.msgpack.decode(m.encode(message))
    assert m.decode(msgspec.msgpack.encode([*fields, "from the future"])) == message


def test_a_task_from_before_attempts_were_counted_is_in_its_first_attempt() -> None:
    old = msgspec.msgpack.encode(["Tasks", [["a", "text_embedding", "model", b"{}", 3, 5.0]]])
    assert m.decode(old) == m.Tasks([m.Task("a", "text_embedding", "model", b"{}", 3, 5.0, 1, "")])


def test_the_representation_of_a_token_does_not_show_its_secret() -> None:
    assert "secret" not in repr(samples.token())
    assert "one" in repr(samples.token())


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(msgspec.msgpack.encode(["Nonsense", 1]))
@example(msgspec.msgpack.encode({"message": "Stored"}))
@example(msgspec.msgpack.encode(["Stored", b"\xff\xfe"]))
def test_every_invalid_frame_raises_the_same_error(garbage: bytes) -> None:
    hears_or_refuses(garbage)


@given(st.sampled_from(MESSAGES), st.integers(0, 10_000), st.binary(min_size=1, max_size=4), st.integers(0, 3))
def test_a_damaged_message_is_decoded_or_raises_the_same_error(
    message: m.Message, where: int, damage: bytes, cut: int
) -> None:
    frame = m.encode(message)
    where %= len(frame)
    hears_or_refuses(frame[:where] + damage + frame[where + cut :])
    hears_or_refuses(frame[:where])


def hears_or_refuses(frame: bytes) -> None:
    try:
        heard = m.decode(frame)
    except msgspec.MsgspecError:
        return
    assert isinstance(heard, m.Message)
