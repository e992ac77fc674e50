"""The worker pool gives each task of a batch its own outcome."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from common.task_types import Outcome, Providers, TaskType
from common.task_types.text_embedding import TextEmbedding, TextEmbeddingContent
from common.wire import messages as m
from stages.embedder.actions import BatchProcessed, ProcessBatch
from stages.embedder.worker_pool import WorkerPool
from tests import samples


class PanicError(BaseException):
    """Like pyo3_runtime.PanicException, it is not an `Exception`."""


class Session:
    """A session that sends nothing."""

    tokens = requests = cached = refused = 0
    reached_at = 0.0


class Engine:
    def session(self, *_: object) -> Session:
        return Session()


class Lengths(TextEmbedding):
    """Returns the text as the outcome; its decoding raises for the text `bad`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def decode(self, raw: bytes) -> TextEmbeddingContent:
        if b"bad" in raw:
            raise self._error
        return super().decode(raw)

    def process(self, key: str, contents: Sequence[TextEmbeddingContent], providers: Providers) -> list[Outcome]:
        return [content.text.encode() for content in contents]


def processed(kind: TaskType[Any], *contents: bytes) -> BatchProcessed:
    """Process a batch of these contents."""
    tasks = [m.Task(str(n), samples.TYPE, "model", content, 1, 0.0) for n, content in enumerate(contents)]
    events: list[BatchProcessed] = []

    def background(pool: ThreadPoolExecutor, work: Any, *arguments: Any) -> None:
        events.append(pool.submit(work, *arguments).result(10))

    pool = WorkerPool(1, {samples.TYPE: kind}, Engine(), background)  # type: ignore[arg-type]
    pool.process(ProcessBatch(m.Batch("b", "boot", samples.TYPE, "model", tasks)))
    pool.close()
    return events[0]


@pytest.mark.parametrize("error", [RuntimeError("s3cret"), PanicError("s3cret")])
def test_a_content_whose_decoding_raises_fails_alone(error: BaseException) -> None:
    done = processed(Lengths(error), b'{"text": "one"}', b'{"text": "bad"}', b'"two"')
    assert [result.id for result in done.results] == ["0", "1", "2"]
    assert [result.document for result in done.results if result.failure is None] == [b"one", b"two"]
    failure = done.results[1].failure
    assert failure is not None
    assert failure.code == "invalid_content"
    assert "s3cret" not in failure.message
    assert done.uncharged == 1


def test_a_batch_in_which_no_content_can_be_decoded_asks_no_provider() -> None:
    done = processed(Lengths(PanicError()), b'"bad"', b"5")
    assert [result.failure is not None for result in done.results] == [True, True]
