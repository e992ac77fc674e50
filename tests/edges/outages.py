"""`python -m tests.edges.outages`: measures what outages of the external services cost; `--write` updates the docs.

For each fault, tasks are queued, the fault begins while they run and ends after a while, and all tasks must end.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from sandbox.client import Sandbox
from sandbox.pipeline import ROOT, Pipeline

PAGE = ROOT / "docs" / "outages.md"
TASKS = 2000
LASTS_S = 8.0
"""Duration of most outages."""
SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",
    "EMBEDDING_DIMENSIONS": 256,
    "EMBED_BATCH_SIZE": 32,
    "POLLING_INTERVAL_SECONDS": 1,
    "REQUEST_TIMEOUT": 2,
    "OPENAI_TIMEOUT": 2,
}
PROVIDER_LATENCY_S = 0.2
"""The provider takes this long for each request, so that every stage has work when the fault begins."""
REQUESTS = {
    "API": ("api_requests", "status_code"),
    "token endpoint": ("oauth2_token_requests", "status"),
    "OpenAI": ("openai_requests", "status"),
}
"""Side → the metric that counts requests to it, and its label with the outcome."""
GOOD = {"200", "success"}


class Outage(NamedTuple):
    """The fault of one row."""

    side: str
    what: str
    how: str
    """The command for the sandbox."""
    begin: Callable[[Sandbox], object]
    end: Callable[[Sandbox], object] = Sandbox.clear_faults
    lasts: float = LASTS_S


class Row(NamedTuple):
    """The cost of one fault."""

    fault: str
    how: str
    lasted: float
    tasks: int
    lost: int
    failed: int
    paid_twice: int
    requests: int
    recovered: float

    def markdown(self) -> str:
        """The row as a line of the table."""
        numbers = (self.tasks, self.lost, self.failed, self.paid_twice, self.requests)
        shown = [self.fault, f"`{self.how}`", f"{self.lasted:.1f} s", *map(str, numbers), f"{self.recovered:.1f} s"]
        return "| " + " | ".join(shown) + " |"


HEAD = (
    "| fault | how it is made | lasts | tasks | lost | failed | paid twice | requests in vain | back at work |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


def _fault(side: str, what: str, service: str, lasts: float = LASTS_S, **fields: Any) -> Outage:
    spec = {"service": service, **fields}
    how = " ".join(f"{name}={value}" for name, value in spec.items() if name not in {"body", "headers"})
    return Outage(side, what, how, lambda sandbox: sandbox.fault(service, **fields), lasts=lasts)


def _down(side: str, service: str) -> Outage:
    def begin(sandbox: Sandbox) -> None:
        sandbox.down(service)
        if service == "oauth2":
            sandbox.revoke()  # otherwise it would not be needed

    what = "refuses connections" + (", all tokens revoked" if service == "oauth2" else "")
    return Outage(side, what, f"down {service}", begin, lambda sandbox: sandbox.up(service))


NO_QUOTA = '{"error": {"code": "insufficient_quota", "type": "insufficient_quota", "message": "no credit"}}'
OUTAGES = (
    _down("API", "api"),
    _fault("API", "answers 503", "api", status=503),
    _fault("API", "answers 429 and asks for 3 s", "api", status=429, headers={"Retry-After": "3"}),
    _fault("API", "answers 403 (its own check fails)", "api", status=403),
    _fault("API", "redirects to a login page", "api", status=302, headers={"Location": "/login"}),
    _fault("API", "stores, then its callback fails", "api", 2, method="PATCH", status=500, stored=True),
    _fault("API", "stores, then breaks the connection", "api", method="PATCH", drop="after", reset=True),
    _fault("API", "cuts its answers short", "api", cut=40),
    _fault("API", "stalls for longer than REQUEST_TIMEOUT", "api", delay=4),
    Outage("API", "refuses all tokens, once", "revoke", Sandbox.revoke, lambda _: None, 0.0),
    _down("token endpoint", "oauth2"),
    _down("OpenAI", "openai"),
    _fault("OpenAI", "answers 500", "openai", status=500),
    _fault("OpenAI", "answers 429 and asks for 3 s", "openai", status=429, headers={"Retry-After": "3"}),
    _fault("OpenAI", "says insufficient_quota", "openai", status=429, body=NO_QUOTA),
    _fault("OpenAI", "stalls for longer than OPENAI_TIMEOUT", "openai", delay=4),
    _fault("OpenAI", "embeds, then breaks the connection", "openai", 1, drop="after", reset=True),
)


class Run:
    """A pipeline on which outages are measured one after another."""

    def __init__(self, sandbox: Sandbox, pipeline: Pipeline) -> None:
        self._sandbox = sandbox
        self._pipeline = pipeline
        sandbox.settings(openai={"latency_seconds": PROVIDER_LATENCY_S})

    def measure(self, outage: Outage, tasks: int = TASKS) -> Row:
        """Measure one outage."""
        sandbox, pipeline = self._sandbox, self._pipeline
        pipeline.kill("token_broker")  # it remembers rejected tokens for minutes; each outage needs a new one
        pipeline.wait_ready()
        before, requests = sandbox.summary(), self._failed_requests(outage.side)
        offset = sum(before["api"]["tasks"].values())
        sandbox.queue(tasks)
        sandbox.wait_until(lambda summary: summary["api"]["accepted"] - before["api"]["accepted"] > tasks // 10)
        began_at = time.time()
        outage.begin(sandbox)
        pipeline.run_for(outage.lasts)
        ended_at = time.time()
        outage.end(sandbox)
        sandbox.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 0, 180)
        pipeline.wait_until(self._at_rest, "the pipeline to be at rest", 180)
        summary, record = sandbox.summary(), sandbox.record(offset)
        accepted = [patch["time"] for task in record for patch in task["patches"] if patch["accepted"]]
        return Row(
            f"{outage.side} {outage.what}", outage.how, ended_at - began_at, len(record),
            lost=sum(task["state"] not in {"succeeded", "failed"} for task in record),
            failed=sum(task["state"] == "failed" for task in record),
            paid_twice=summary["openai"]["paid_again"] - before["openai"]["paid_again"],
            requests=self._failed_requests(outage.side) - requests,
            recovered=min((at - ended_at for at in accepted if at > ended_at), default=0.0),
        )  # fmt: skip

    def _failed_requests(self, side: str) -> int:
        """The number of failed requests to this side, as the service counts them; it arrives with the heartbeats."""
        self._pipeline.run_for(1.5)
        name, label = REQUESTS[side]
        families = text_string_to_metric_families(str(self._pipeline.get("/metrics")[1]))
        samples = [sample for family in families if family.name == name for sample in family.samples]
        return sum(int(sample.value) for sample in samples if sample.labels.get(label, "200") not in GOOD)

    def _at_rest(self) -> bool:
        processes: dict[str, dict[str, Any]] = (self._pipeline.get("/health")[1] or {}).get("processes", {})
        return bool(processes) and not any(processes[stage].get(fact) for stage, fact in ZERO_AT_REST)


ZERO_AT_REST = (("fetcher", "leased"), ("fetcher", "lost"), ("publisher", "outbox"))


def main() -> int:
    """Measure the outages; returns 0 if no task was lost or has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--only", default="", help="a regular expression that selects faults")
    options = parser.parse_args()
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox.start() as sandbox,
        Pipeline(sandbox, Path(folder), **SETTINGS) as pipeline,
    ):
        run = Run(sandbox, pipeline)
        sys.stdout.write(HEAD + "\n")
        for outage in OUTAGES:
            if re.search(options.only, f"{outage.side} {outage.what}"):
                rows.append(run.measure(outage))
                sys.stdout.write(rows[-1].markdown() + "\n")
                sys.stdout.flush()
    if options.write:
        table = "\n".join([HEAD, *(row.markdown() for row in rows)])
        PAGE.write_text(re.sub(r"\| fault \|.*?\|\n(?!\|)", lambda _: table + "\n", PAGE.read_text(), flags=re.DOTALL))
    return int(any(row.lost or row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
