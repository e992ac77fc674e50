"""An embedder that is told to stop keeps the results of running requests, and ends every wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from common.failures.errors import Transient
from common.task_types import Deferral
from stages.embedder.engine import EmbeddingEngine
from tests.embedder.fakes import LENGTH, MODEL, HeldReply, ScriptedProvider, engine, settings
from tests.waiting import wait_until


def test_after_a_stop_the_running_request_is_kept_and_no_other_begins() -> None:
    held = HeldReply()
    provider = ScriptedProvider(inputs=2)
    provider.always = held
    shared = engine(provider)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(shared.session().embed, MODEL, ["a", "b", "c"])
        assert held.began.wait(30)
        shared.stop()
        held.go.set()
        first, second, third = running.result()
    assert isinstance(first, np.ndarray)
    assert isinstance(second, np.ndarray), "the running request is kept"
    assert isinstance(third, Deferral)
    assert third.unsent
    assert provider.requests == [["a", "b"]]


def test_a_stop_ends_a_back_off_at_once() -> None:
    provider = ScriptedProvider()
    provider.always = Transient("down")
    shared = EmbeddingEngine(
        settings(retry_backoff_factor=60, max_retries=5, embedding_lengths={MODEL: LENGTH}), made=[provider]
    )
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(shared.session().embed, MODEL, ["a"])
        wait_until(lambda: len(provider.requests) == 2)
        shared.stop()
        (outcome,) = running.result(timeout=10)
    assert isinstance(outcome, Deferral)
    shared.close()
