"""Canaries: external services send secrets and a text back to the service; they must not appear in any output."""

from __future__ import annotations

import base64
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.processes import run_module

TEXT = "CanaryPerson Zoë has a secret"
SECRET = "canary-secret+/=&%ü"
KEY = "sk-canary-0123456789abcdef"
PROXY = "canary-proxy-password"
CANARIES = re.compile(
    rb"(?i)CanaryPerson|aryPers|nosrePyranaC|canary-secret|sk-canary|canary-proxy|Zo(?:\xc3\xab|%C3%AB|\\+u00eb)"
    rb"|Q2FuYXJ5|FuYXJ5UGVyc29u|43616e617279|ory_at_[A-Za-z0-9_-]{8}|(?-i:Bearer [A-Za-z0-9])"
)
"""The secrets and the text, whole or in part, in capitals, escaped, reversed, in base64 or as hexadecimal digits."""
ECHO = json.dumps({"error": "invalid_client", "message": f"{TEXT} {SECRET} Bearer ory_at_0123456789abcdef"})
BY_OPENAI = json.dumps({"error": {"message": f"{TEXT}: no access for {KEY}", "code": TEXT, "param": KEY}})
FORMS = [
    TEXT[6:20], TEXT.upper(), TEXT[::-1], base64.b64encode(TEXT.encode()).decode(), TEXT.encode().hex(),
    json.dumps(json.dumps(TEXT)), TEXT.replace(" ", "\n"), f"ory_at_0123456789abcdef is not a valid token for {TEXT!r}",
]  # fmt: skip
"""Other forms in which an API may repeat the text or a token."""
BY_API = [
    {"service": "api", "method": "PATCH", "status": 422, "times": 1,
     "body": json.dumps({"message": ["the callback failed", form], "requestId": form})} for form in FORMS
]  # fmt: skip
ECHOES: list[dict[str, Any]] = [
    *BY_API,
    {"service": "oauth2", "status": 500, "body": ECHO, "times": 1},
    {"service": "api", "path": "pending", "status": 401, "body": ECHO, "times": 1},
    {"service": "api", "path": "pending", "status": 200, "body": ECHO, "times": 1},
    {"service": "api", "path": "pending", "cut": 900, "times": 1},
    {"service": "api", "method": "PATCH", "status": 400, "body": ECHO, "times": 2},
    {"service": "api", "method": "PATCH", "status": 422, "body": ECHO, "times": 1},
    {"service": "api", "method": "PATCH", "status": 403, "body": ECHO, "times": 1},
    {"service": "openai", "status": 500, "body": BY_OPENAI, "times": 1},
    {"service": "openai", "status": 200, "body": BY_OPENAI, "times": 1},
    {"service": "openai", "drop": "after", "times": 1},
    {"service": "openai", "body_contains": "refuse me", "status": 400,
     "body": json.dumps({"error": {"message": f"bad input: {TEXT} refuse me, key {KEY}", "code": TEXT}})},
]  # fmt: skip
MALFORMED: list[Any] = [
    {"_id": "a" * 24, "type": "text_embedding", "state": "pending", "content": {"text": [TEXT]}},
    {"_id": "b" * 24, "type": "text_embedding", "state": "pending", "content": {"text": TEXT, "model": {TEXT: 1}}},
    {"_id": "c" * 24, "type": "text_embedding", "state": "pending", "content": TEXT},
    {"_id": "d" * 24, "type": "text_embedding", "state": "pending", "content": {TEXT: TEXT}},
    {"_id": "e" * 24, "type": "text_embedding", "state": "pending", "content": {"text": TEXT, "model": 7}},
    {"_id": {TEXT: TEXT}, "type": "text_embedding", "state": "pending", "content": {"text": TEXT}},
    TEXT,
]


class Traces:
    """Everything that a run leaves behind or shows."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.pages: list[bytes] = []
        self.commands = b""

    def look(self) -> None:
        """Read the monitor's pages and the command lines of all processes."""
        for path in ("/health", "/ready", "/metrics", "/"):
            self.pages.append(json.dumps(self.pipeline.get(path), ensure_ascii=False).encode())
        for process in psutil.process_iter(["cmdline", "name"]):
            self.commands += " ".join([process.info["name"] or "", *(process.info["cmdline"] or [])]).encode()

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of all files, pages and command lines."""
        for path in self.pipeline.folder.rglob("*"):
            if path.is_file():
                yield path.name, path.read_bytes()
        yield "pages", b"".join(self.pages)
        yield "commands", self.commands


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    settings: dict[str, object] = {
        "PROCESSING_MODE": "openai",
        "OAUTH2_CLIENT_SECRET": SECRET,
        "OPENAI_API_KEY": KEY,
        "POLLING_INTERVAL_SECONDS": 0.5,
        "MAX_RETRIES": 1,
        "RETRY_BACKOFF_FACTOR": 1,
        "LOG_LEVEL": "DEBUG",
        "EMBED_BATCH_SIZE": 4,
        "HTTPS_PROXY": f"http://user:{PROXY}@127.0.0.1:9",
    }
    with Sandbox.start() as sandbox:
        sandbox.settings(oauth2={"client_secret": SECRET})
        for fault in ECHOES:
            sandbox.fault(**fault)
        with Pipeline(sandbox, tmp_path_factory.mktemp("p"), **settings) as pipeline:
            yield _run(pipeline, sandbox)


def _run(pipeline: Pipeline, sandbox: Sandbox) -> Traces:
    """Process tasks until every echo has been received and some results were refused; then stop."""
    traces = Traces(pipeline)
    for number in range(12 + len(FORMS)):
        sandbox.queue(1, text=f"{TEXT} {number}" + " refuse me" * (number % 6 == 0))
    sandbox.queue_raw(MALFORMED)

    def done() -> bool:
        traces.look()
        applied = all(fault["applied"] for fault in sandbox.faults())
        tasks = sandbox.summary()["api"]["tasks"]
        return applied and bool(pipeline.events("result_dead_lettered")) and tasks.get("succeeded", 0) >= 9

    pipeline.wait_until(done, "all echoes, and all tasks", 60)
    sandbox.fault("oauth2", status=401, body=ECHO)
    pipeline.kill("token_broker")
    pipeline.wait_until(lambda: "invalid_client" in pipeline.log.read_text(), "the refused secret to be logged")
    _send_garbage(pipeline)
    pipeline.wait_until(lambda: pipeline.events("undecodable_frame"), "the undecodable frames to be logged")
    for arguments in (["check"], ["dead-letters", "list"]):
        completed = run_module("stages", *arguments, environment=pipeline.environment)
        traces.pages.append((completed.stdout + completed.stderr).encode())
    traces.look()
    pipeline.stop()
    return traces


def _send_garbage(pipeline: Pipeline) -> None:
    """Send a frame that cannot be decoded to every inbox."""
    with zmq.Context() as context:
        for inbox in (pipeline.folder / "state" / "run").glob("*.sock"):
            with context.socket(zmq.PUSH) as socket:
                socket.setsockopt(zmq.LINGER, 1000)
                socket.connect(f"ipc://{inbox}")
                socket.send_multipart([b"fetcher", f"{TEXT} {SECRET} {KEY}".encode()])


def test_no_secret_appears_in_files_pages_or_command_lines(traces: Traces) -> None:
    for name, content in traces.files():
        found = CANARIES.search(content)
        shown = content[max(0, found.start() - 300) : found.end() + 100] if found else b""
        assert not found, f"in {name}: {shown!r}"


def test_the_search_covers_the_places_where_a_secret_could_be(traces: Traces) -> None:
    files = dict(traces.files())
    assert b"token_request_failed" in files["pipeline.log"]
    assert b"stages.fetcher" in files["commands"]
    assert b'"status": "' in files["pages"] or b"ai_tasks_processed_total" in files["pages"]
    assert len([name for name in files if name == "data.mdb"]) == 1  # several, under one name
    assert b"invalid_content" in files["pipeline.log"] or b"task_invalid" in files["pipeline.log"]


def test_dead_letters_show_the_apis_own_words(traces: Traces) -> None:
    reasons = [event["reason"] for event in traces.pipeline.events("result_dead_lettered")]
    assert len([reason for reason in reasons if "PATCH answered 422: the callback failed" in reason]) == len(FORMS)


def test_only_the_owner_can_access_state_and_sockets(traces: Traces) -> None:
    state = traces.pipeline.folder / "state"
    for path in (state, *state.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        wanted = 0o700 if path.is_dir() or path.is_socket() else 0o600
        assert mode & ~wanted == 0, f"{path}: {mode:o}"
    assert (state / "publisher" / "data.mdb").exists()


def test_log_events_of_failed_tasks_do_not_contain_the_text(traces: Traces) -> None:
    failed = [event for event in traces.pipeline.events() if event["event"] in {"task_invalid", "result_dead_lettered"}]
    assert failed
    assert not [event for event in failed if "Canary" in json.dumps(event)]
    assert Path(traces.pipeline.log).stat().st_size > 1000
