"""Who may push what to whom."""

from __future__ import annotations

import importlib.util
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from common.wire import messages as m
from common.wire.wiring import EDGES, OPERATOR, REPEATED, STAGES, Wiring, is_repeated, stage_of
from tests.common.test_messages import MESSAGES

RUNTIME = Path("/run/ai")
KINDS: tuple[type[m.Message], ...] = get_args(m.AnyMessage)
ONE_OF_EACH = {type(message): message for message in MESSAGES}


def instance(stage: str) -> str:
    return "embedder_07" if stage == "embedder" else stage


def carried() -> list[tuple[str, str, type[m.Message]]]:
    return [(sender, receiver, kind) for (sender, receiver), kinds in EDGES.items() for kind in kinds]


@pytest.mark.parametrize(("sender", "receiver", "kind"), carried())
def test_every_edge_of_the_table_may_be_used(sender: str, receiver: str, kind: type[m.Message]) -> None:
    wiring = Wiring(RUNTIME, instance(sender))
    wiring.check(instance(receiver), ONE_OF_EACH[kind])
    wiring.check(wiring.endpoint(instance(receiver)), ONE_OF_EACH[kind])


def test_no_other_may() -> None:
    allowed = set(carried())
    for sender, receiver, kind in product((*STAGES, OPERATOR), STAGES, KINDS):
        if (sender, receiver, kind) not in allowed:
            with pytest.raises(AssertionError, match=f"{kind.__name__} from {sender} to {receiver}"):
                Wiring(RUNTIME, instance(sender)).check(instance(receiver), ONE_OF_EACH[kind])


def test_an_inbox_of_nobody_we_know_gets_nothing() -> None:
    with pytest.raises(AssertionError):
        Wiring(RUNTIME, "fetcher").check("ipc:///tmp/elsewhere.sock", ONE_OF_EACH[m.Tasks])


def test_every_message_travels_somewhere() -> None:
    assert {kind for _, _, kind in carried()} == set(KINDS)


def test_every_stage_takes_part_and_has_its_package() -> None:
    assert {name for edge in EDGES for name in edge} == {*STAGES, OPERATOR}
    assert all(importlib.util.find_spec(f"stages.{stage}") for stage in STAGES)


def test_nobody_sends_to_the_operator_and_everybody_to_the_monitor() -> None:
    assert not [receiver for _, receiver in EDGES if receiver == OPERATOR]
    assert {sender for sender, receiver in EDGES if receiver == "monitor"} == set(STAGES)


def test_each_instance_has_one_inbox_in_the_runtime_directory() -> None:
    assert Wiring(RUNTIME, "embedder_03").inbox == "ipc:///run/ai/embedder_03.sock"
    assert Wiring(RUNTIME, "fetcher").endpoint("publisher") == "ipc:///run/ai/publisher.sock"


def test_an_instance_is_known_by_its_name_or_by_its_inbox() -> None:
    wiring = Wiring(RUNTIME, "publisher")
    assert wiring.instance_at("embedder_03") == "embedder_03"
    assert wiring.instance_at("ipc:///run/ai/embedder_03.sock") == "embedder_03"


def test_only_the_embedders_have_numbers() -> None:
    assert Wiring(RUNTIME, "embedder_12").stage == stage_of("embedder_12") == "embedder"
    assert [stage_of(instance(stage)) for stage in STAGES] == list(STAGES)


def test_what_its_sender_repeats_by_itself_may_be_dropped_and_nothing_else() -> None:
    """A batch, a settlement or a deferral that is lost would cost a lease, a payment or an answer."""
    assert {m.Tasks, m.Batch, m.Finished, m.Stored, m.Published, m.Deferred}.isdisjoint(REPEATED)
    assert is_repeated(m.Results("batch", "ipc:///run/embedder_00.sock", []))
    assert not is_repeated(m.Results("", "", [])), "the fetcher says once that a task cannot be processed"
