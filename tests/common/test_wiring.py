"""Which process may send which message to which other process."""

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


def test_a_message_that_is_not_in_the_table_of_edges_is_refused() -> None:
    allowed = set(carried())
    for sender, receiver, kind in product((*STAGES, OPERATOR), STAGES, KINDS):
        if (sender, receiver, kind) not in allowed:
            with pytest.raises(AssertionError, match=f"{kind.__name__} from {sender} to {receiver}"):
                Wiring(RUNTIME, instance(sender)).check(instance(receiver), ONE_OF_EACH[kind])


def test_an_unknown_inbox_is_refused() -> None:
    with pytest.raises(AssertionError):
        Wiring(RUNTIME, "fetcher").check("ipc:///tmp/elsewhere.sock", ONE_OF_EACH[m.Tasks])


def test_every_message_is_in_the_table_of_edges() -> None:
    assert {kind for _, _, kind in carried()} == set(KINDS)


def test_every_stage_is_in_the_table_of_edges_and_has_its_package() -> None:
    assert {name for edge in EDGES for name in edge} == {*STAGES, OPERATOR}
    assert all(importlib.util.find_spec(f"stages.{stage}") for stage in STAGES)


def test_the_operator_receives_no_message_and_the_monitor_receives_from_every_stage() -> None:
    assert not [receiver for _, receiver in EDGES if receiver == OPERATOR]
    assert {sender for sender, receiver in EDGES if receiver == "monitor"} == set(STAGES)


def test_each_instance_has_one_inbox_in_the_runtime_directory() -> None:
    assert Wiring(RUNTIME, "embedder_03").inbox == "ipc:///run/ai/embedder_03.sock"
    assert Wiring(RUNTIME, "fetcher").endpoint("publisher") == "ipc:///run/ai/publisher.sock"


def test_an_instance_is_known_by_its_name_or_by_its_inbox() -> None:
    wiring = Wiring(RUNTIME, "publisher")
    assert wiring.instance_at("embedder_03") == "embedder_03"
    assert wiring.instance_at("ipc:///run/ai/embedder_03.sock") == "embedder_03"


def test_only_embedders_have_numbered_instances() -> None:
    assert Wiring(RUNTIME, "embedder_12").stage == stage_of("embedder_12") == "embedder"
    assert [stage_of(instance(stage)) for stage in STAGES] == list(STAGES)


def test_only_messages_that_their_sender_repeats_may_be_dropped() -> None:
    """Losing a batch, a settlement or a deferral would cost a lease or a payment."""
    assert {m.Tasks, m.Batch, m.Finished, m.Stored, m.Published, m.Deferred}.isdisjoint(REPEATED)
    assert is_repeated(m.Results("batch", "ipc:///run/embedder_00.sock", []))
    assert not is_repeated(m.Results("", "", [])), "the fetcher sends the failure of a task only once"
