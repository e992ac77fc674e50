"""Tasks that a test has queued: their results and their cost."""

from __future__ import annotations

from collections import Counter
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from sandbox.client import Json
from sandbox.pipeline import Pipeline

MODEL = "text-embedding-3-small"


class Job:
    """Counts from the moment it is made, so that tests can share a pipeline."""

    def __init__(self, pipeline: Pipeline, provider: str = "openai") -> None:
        self.pipeline = pipeline
        self.sandbox = pipeline.sandbox
        self.provider = provider
        self.ids: list[str] = []
        self._before = self._told()
        self._charged = len(self.sandbox.charges(provider))
        self._api = self.sandbox.summary()["api"]
        self._offset = sum(self._api["tasks"].values())

    def queue(self, count: int, **fields: Any) -> Job:
        """Queue distinct texts (`text`, with `{n}`), or with `distinct=False` the same one over and over."""
        self.ids += self.sandbox.queue(count, **fields)
        return self

    def queue_texts(self, *texts: str, model: str = MODEL) -> Job:
        self.ids += self.sandbox.queue_tasks([{"text": text, "model": model} for text in texts])
        return self

    def wait_done(self, seconds: float = 30.0) -> Job:
        """Wait until the API has a result for each; what other jobs have queued does not count."""
        what = f"{len(self.ids)} results"
        self.pipeline.wait_until(lambda: self.accepted >= len(self.ids), what, seconds)  # cheap, and may be of others
        self.pipeline.wait_until(lambda: not self._pending(), what, seconds)
        return self

    @property
    def accepted(self) -> int:
        return int(self.sandbox.summary()["api"]["accepted"] - self._api["accepted"])

    @property
    def states(self) -> Counter[str]:
        return Counter(task["state"] for task in self.sandbox.record(self._offset))

    @property
    def paid(self) -> int:
        """Texts that the provider was paid for."""
        return int(self._told()["inputs"] - self._before["inputs"])

    @property
    def paid_again(self) -> int:
        """Payments for texts that were paid for before."""
        return int(self._told()["paid_again"] - self._before["paid_again"])

    @property
    def requests(self) -> int:
        return int(self._told()["requests"] - self._before["requests"])

    @property
    def statuses(self) -> dict[str, int]:
        """Responses by status; "0" is a connection that was closed without one."""
        before, after = self._before["statuses"], self._told()["statuses"]
        return {
            status: count - before.get(status, 0) for status, count in after.items() if count > before.get(status, 0)
        }

    @property
    def charges(self) -> list[Json]:
        """Every request that was paid for: time, inputs, tokens."""
        return self.sandbox.charges(self.provider)[self._charged :]

    @property
    def errors(self) -> dict[str, Json]:
        """The errors of those that failed, by id."""
        results = self.sandbox.results()
        return {i: results[i]["error"] for i in self.ids if isinstance(results.get(i), dict)}

    def _pending(self) -> set[str]:
        pending = {task["id"] for task in self.sandbox.record(self._offset) if task["state"] == "pending"}
        return pending.intersection(self.ids)

    def _told(self) -> Json:
        told: Json = self.sandbox.summary()[self.provider]
        return told


def counted(pipeline: Pipeline, family: str, **labels: str) -> float:
    """Return the sum of a metric over its samples with these labels."""
    families = {found.name: found for found in text_string_to_metric_families(pipeline.get("/metrics")[1])}
    samples = families[family].samples if family in families else []
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def ready(pipeline: Pipeline) -> tuple[int, str]:
    """The status of /ready, and its reasons and notices in one string."""
    status, page = pipeline.get("/ready")
    page = page or {}
    return status, "; ".join([*page.get("reasons", ()), *page.get("notices", ())])


def wait_for_words(pipeline: Pipeline, *words: str, status: int = 503) -> str:
    """Wait until /ready has this status and contains all these words; returns its text."""
    told = ""

    def said() -> bool:
        nonlocal told
        answered, told = ready(pipeline)
        return answered == status and all(word in told for word in words)

    pipeline.wait_until(said, f"/ready to answer {status} and say {words}")
    return told
