"""What a charge does not cover any more is not written, however late that is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from common.process.clock import monotonic
from common.task_types import Deferral
from sandbox.client import Sandbox
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.providers import Embeddings, sending
from tests.embedder.fakes import MODEL, Clock, ScriptedProvider, are_vectors, engine, settings

SMALL, NOMIC = "text-embedding-3-small", "nomic-embed-text"
MODES = {"openai": SMALL, "ollama": NOMIC}


def stopped_at(monkeypatch: pytest.MonkeyPatch, look: int, seconds: float = 60.0) -> None:
    """Let the process be stopped before its look at the time with this number, counted from now."""
    looks = iter(range(1000))
    real = monotonic

    def late() -> float:
        return real() + (seconds if next(looks) >= look else 0.0)

    monkeypatch.setattr(sending, "monotonic", late)


def real_engine(sandbox: Sandbox, mode: str) -> EmbeddingEngine:
    names = sandbox.environment()
    fields: dict[str, Any] = {name.lower(): value for name, value in names.items()}
    return EmbeddingEngine(settings(**{**fields, "processing_mode": mode, "openai_api_key": "sk-0123456789"}))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("look", range(1, 4))
def test_a_request_that_became_late_is_not_sent_and_its_texts_come_again(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, mode: str, connected: bool, look: int
) -> None:
    shared = real_engine(sandbox, mode)
    if connected:
        shared.session().embed(MODES[mode], ["one that opens a connection"])
    paid = len(sandbox.charges(mode))
    stopped_at(monkeypatch, look)
    session = shared.session(8, monotonic() + 10)
    [outcome] = session.embed(MODES[mode], ["late"])
    monkeypatch.undo()
    if isinstance(outcome, Deferral):
        assert (outcome.unsent, outcome.at_most) == (True, 1)
        assert (session.requests, len(sandbox.charges(mode))) == (0, paid)
        assert shared.blockers() == shared.notices() == []
    else:
        assert len(sandbox.charges(mode)) == paid + 1, "the last look was before this"
    assert all(are_vectors(shared.session(8, monotonic() + 10).embed(MODES[mode], ["late"])))
    shared.close()


def test_a_batch_whose_charge_is_over_makes_no_request() -> None:
    provider, clock = ScriptedProvider(), Clock()
    session = engine(provider, clock=clock).session(8, clock.mono - 0.001)
    outcomes = session.embed(MODEL, ["a", "b"])
    assert all(isinstance(outcome, Deferral) and outcome.unsent and outcome.at_most == 2 for outcome in outcomes)
    assert provider.requests == []
    assert session.requests == 0


def test_a_retry_that_the_charge_does_not_cover_is_left_to_a_later_batch() -> None:
    clock = Clock()

    def slow(_: Sequence[str]) -> Embeddings | None:
        clock.mono += 11
        return None

    provider = ScriptedProvider(inputs=1)
    provider.always = slow
    session = engine(provider, clock=clock).session(8, clock.mono + 10)
    outcomes = session.embed(MODEL, ["a", "b"])
    assert are_vectors(outcomes) == [True, False]
    assert (
        outcomes[1] == Deferral(outcomes[1].until, unsent=True, at_most=1) if isinstance(outcomes[1], Deferral) else 0
    )
    assert provider.requests == [["a"]]


def test_inside_a_context_another_one_may_begin_and_end() -> None:
    with sending.covered_until(monotonic() - 1):
        with pytest.raises(sending.NotCoveredError):
            sending.check()
        with sending.covered_until(monotonic() + 5):
            sending.check()
            assert 0 < sending.left_s() <= 5
        with pytest.raises(sending.NotCoveredError):
            sending.check()
    sending.check()
    assert sending.left_s() == sending.FAR_S
