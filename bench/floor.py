"""The floor: the work that no program can avoid for a task, each step alone, with the libraries that the service uses.

A vector of 1,536 float32 numbers comes in base64, becomes JSON, is put durably into an outbox, is PATCHed by libcurl
over 16 kept-alive connections, and is deleted durably. CPU time, user and system, of this process only. `waiting for
the disk` is the rest of the time that the outbox takes: it depends on the disk of TMPDIR.
"""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable, Iterable
from urllib.parse import quote_plus

import lmdb
import numpy as np
import orjson
import pycurl
import requests

from bench.figures import Report
from bench.running import QUEUE_CHUNK, TEXT, short_folder, stand_ins
from bench.sizes import Size
from sandbox.client import Sandbox
from stages.embedder.providers.mock import vectors

CONNECTIONS = 16
COMMIT_COUNT = 512
"""Results in one commit."""
ROWS = 256
MAP_BYTES = 2**30


def measure(report: Report, size: Size) -> None:
    """Measure the steps one after another, as often as wanted."""
    rows = vectors("text-embedding-3-small", [f"text {number}" for number in range(ROWS)])
    encoded = [base64.b64encode(row.tobytes()) for row in rows]
    bodies = [_json(row) for row in rows]
    for _ in range(size.runs):
        outbox_cpu_us, outbox_waiting_us = outbox(rows, size.tasks)
        steps = {
            "base64 → float32": cpu_us(lambda at: _decoded(encoded[at % ROWS]), size.tasks),
            "float32 → JSON": cpu_us(lambda at: _json(rows[at % ROWS]), size.tasks),
            "outbox: put and delete, with fsync": outbox_cpu_us,
            "PATCH by libcurl": patches(bodies, size.tasks),
        }
        for name, microseconds in steps.items():
            report.add(name, "µs/task", microseconds)
        report.add("floor: all four", "µs/task", sum(steps.values()))
        report.add("outbox: waiting for the disk", "µs/task", outbox_waiting_us)


def _decoded(text: bytes) -> object:
    return np.frombuffer(base64.b64decode(text), "<f4")


def _json(row: object) -> bytes:
    return b'{"state":"succeeded","result":' + orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"}"


def cpu_us(step: Callable[[int], object], tasks: int) -> float:
    """CPU microseconds of one call of a step, which is told the number of the call."""
    began = time.process_time()
    for number in range(tasks):
        step(number)
    return (time.process_time() - began) / tasks * 1e6


def outbox(rows: Iterable[object], tasks: int) -> tuple[float, float]:
    """Microseconds a task: CPU, and waiting for the disk; results are put and deleted in durable batches."""
    values = [bytes(memoryview(row).cast("B")) for row in rows]  # type: ignore[arg-type]  # a row of numpy is a buffer
    with short_folder() as folder, lmdb.open(str(folder), map_size=MAP_BYTES) as environment:
        began, began_cpu = time.monotonic(), time.process_time()
        for start in range(0, tasks, COMMIT_COUNT):
            keys = [b"%024x" % number for number in range(start, min(tasks, start + COMMIT_COUNT))]
            with environment.begin(write=True) as transaction:
                for key, value in zip(keys, itertools.cycle(values), strict=False):
                    transaction.put(key, value)
            with environment.begin(write=True) as transaction:
                for key in keys:
                    transaction.delete(key)
        cpu = time.process_time() - began_cpu
        return cpu / tasks * 1e6, (time.monotonic() - began - cpu) / tasks * 1e6


def patches(bodies: list[bytes], tasks: int) -> float:
    """CPU microseconds of one accepted PATCH."""
    with stand_ins() as sandbox:
        ids = [task for count in _chunks(tasks) for task in sandbox.queue(count, text=TEXT)]
        headers = [f"Authorization: Bearer {access_token(sandbox)}", "Content-Type: application/json"]
        began = time.process_time()
        _send(f"{sandbox.api}/api/ai-tasks/", ids, bodies, headers)
        cpu = time.process_time() - began
        accepted = sandbox.summary()["api"]["accepted"]
    if accepted != tasks:
        raise RuntimeError(f"the API stand-in accepted {accepted} of {tasks} PATCHes")
    return cpu / tasks * 1e6


def _chunks(tasks: int) -> Iterable[int]:
    return (min(QUEUE_CHUNK, tasks - start) for start in range(0, tasks, QUEUE_CHUNK))


def access_token(sandbox: Sandbox) -> str:
    """Get an access token from the stand-in."""
    answer = requests.post(
        sandbox.token_url,
        data={"grant_type": "client_credentials"},
        auth=(quote_plus(sandbox.client_id), quote_plus(sandbox.client_secret)),
        timeout=10,
    )
    return str(answer.json()["access_token"])


def _send(url: str, ids: list[str], bodies: list[bytes], headers: list[str]) -> None:
    """PATCH every task over kept-alive connections."""
    multi, waiting, busy = pycurl.CurlMulti(), iter(zip(ids, itertools.cycle(bodies), strict=False)), 0
    free = [_handle(headers) for _ in range(CONNECTIONS)]
    while True:
        for task_id, body in itertools.islice(waiting, len(free)):
            handle = free.pop()
            handle.setopt(pycurl.URL, url + task_id)
            handle.setopt(pycurl.POSTFIELDS, body)
            multi.add_handle(handle)
            busy += 1
        if not busy:
            return
        multi.perform()
        _, ended, failed = multi.info_read()
        if failed:
            raise RuntimeError(f"a PATCH failed: {failed[0][2]}")
        for handle in ended:
            multi.remove_handle(handle)
            free.append(handle)
            busy -= 1
        if not ended:
            multi.select(1.0)


def _handle(headers: list[str]) -> pycurl.Curl:
    handle = pycurl.Curl()
    handle.setopt(pycurl.CUSTOMREQUEST, "PATCH")
    handle.setopt(pycurl.HTTPHEADER, headers)
    handle.setopt(pycurl.WRITEFUNCTION, len)
    handle.setopt(pycurl.NOSIGNAL, 1)
    return handle
