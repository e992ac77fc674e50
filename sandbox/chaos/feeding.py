"""The tasks of a run. Most are good; some have a fault of their own, which must hurt no other task."""

import random
from dataclasses import dataclass
from typing import Any

from sandbox.client import Sandbox

MODEL = "text-embedding-3-small"
DIMENSIONS = 64
POISON = "POISON"
"""The provider refuses a request with a text that contains this."""
REFUSED_ID = "badcab1e"
"""The API refuses the result of a task whose id begins with this."""
OWN_FAULT_SHARE = 0.01


@dataclass(frozen=True)
class FedTask:
    """One task that was queued."""

    id: str
    text: str
    own_fault: str = ""
    """Why it cannot succeed: "empty text", "poisoned text" or "refused result"; empty for a good task."""


class Feeder:
    """Queues tasks, and remembers them."""

    def __init__(self, sandbox: Sandbox, seed: int) -> None:
        self.tasks: list[FedTask] = []
        self._sandbox = sandbox
        self._rng = random.Random(f"tasks {seed}")
        sandbox.fault(
            "openai", body_contains=POISON, status=400, body='{"error":{"message":"This input is not allowed"}}'
        )
        sandbox.fault(
            "api", method="PATCH", path=f"/ai-tasks/{REFUSED_ID}", status=422,
            body='{"statusCode":422,"message":"The target of this task does not take its result"}',
        )  # fmt: skip

    def queue(self, count: int) -> None:
        """Queue this number of tasks."""
        start = len(self.tasks)
        kinds = [self._own_fault() for _ in range(count)]
        texts = {"": "chaos {n}", "empty text": "", "poisoned text": f"{POISON} {{n}}", "refused result": "refused {n}"}
        new: list[dict[str, Any]] = []
        for number, kind in enumerate(kinds, start):
            task = {"text": texts[kind].format(n=number), "model": MODEL}
            new.append({**task, "_id": f"{REFUSED_ID}{number:016x}"} if kind == "refused result" else task)
        ids = self._sandbox.queue_tasks(new)
        fed = zip(ids, new, kinds, strict=True)
        self.tasks += [FedTask(task_id, str(task["text"]), kind) for task_id, task, kind in fed]

    @property
    def unfinished_at_the_end(self) -> int:
        """How many tasks stay pending in the API: those whose result it refuses."""
        return sum(task.own_fault == "refused result" for task in self.tasks)

    def _own_fault(self) -> str:
        if self._rng.random() >= OWN_FAULT_SHARE:
            return ""
        return self._rng.choice(("empty text", "poisoned text", "refused result"))
