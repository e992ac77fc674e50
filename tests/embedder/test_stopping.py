"""An embedder that is told to stop finishes the running request, and waits for nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from common.failures.errors import Transient
from common.task_types import Deferral
from stages.embedder.engine import Embedding
from tests.embedder.fakes import MODEL, Held, Scripted, embedding, settings
from tests.waiting import wait_until


def test_a_stop_ends_every_wait_and_begins_no_request() -> None:
    held = Held()
    provider = Scripted(inputs=2)
    provider.always = held
    shared = embedding(provider)
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


def test_a_stop_interrupts_a_back_off() -> None:
    provider = Scripted()
    provider.always = Transient("down")
    shared = Embedding(settings(retry_backoff_factor=60, max_retries=5), made=[provider])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(shared.session().embed, MODEL, ["a"])
        wait_until(lambda: len(provider.requests) == 2)
        shared.stop()
        (outcome,) = running.result(timeout=10)
    assert isinstance(outcome, Deferral)
    shared.close()
