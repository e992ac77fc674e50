"""What a Python team would use instead: Celery on Redis, PATCHing with requests.

`python peer.py` feeds the queue, and `celery -A peer worker` works on it; both need API_BASE_URL, OAUTH2_*,
REDIS_SOCKET, and VECTORS (a file with one vector a line: float32, base64). Both print a line when they are ready; the
feeder starts at a line on its standard input. The pending tasks are read once, in one page.
No result is stored in Redis.
"""

from __future__ import annotations

import base64
import functools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import requests
from celery import Celery
from celery.signals import worker_process_init, worker_ready

API = os.environ["API_BASE_URL"] + "/api/ai-tasks/"
TIMEOUT_S = 60

app = Celery("peer", broker=f"redis+socket://{os.environ['REDIS_SOCKET']}")
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@functools.cache
def session() -> requests.Session:
    """The session of this process, with an access token; its connection is kept alive."""
    made = requests.Session()
    made.trust_env = False  # else requests looks for proxies and a .netrc at each request, which costs a third of it
    answer = requests.post(
        os.environ["OAUTH2_TOKEN_URL"],
        data={"grant_type": "client_credentials"},
        auth=(os.environ["OAUTH2_CLIENT_ID"], os.environ["OAUTH2_CLIENT_SECRET"]),
        timeout=TIMEOUT_S,
    )
    made.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    made.headers["Content-Type"] = "application/json"
    return made


@functools.cache
def vectors() -> list[bytes]:
    """The vectors of the mock, in base64."""
    return Path(os.environ["VECTORS"]).read_bytes().split()


def embed_and_patch(task_id: str, number: int, text: str, model: str) -> None:  # noqa: ARG001  a job carries its text
    """Take the vector of a task, and PATCH it."""
    row = np.frombuffer(base64.b64decode(vectors()[number % len(vectors())]), dtype="<f4")
    body = orjson.dumps({"state": "succeeded", "result": row}, option=orjson.OPT_SERIALIZE_NUMPY)
    session().patch(API + task_id, data=body, timeout=TIMEOUT_S).raise_for_status()


def warm_up(**_: object) -> None:
    """Do in each process of the worker, before it takes a task, what is needed once."""
    session()
    vectors()


worker_process_init.connect(warm_up)
worker_ready.connect(lambda **_: say_ready(), weak=False)
job: Any = app.task(embed_and_patch, name="embed_and_patch")


def say_ready() -> None:
    """Print the line that says so."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def feed() -> None:
    """Put every pending task into the queue."""
    tasks = orjson.loads(session().get(API + "pending", timeout=TIMEOUT_S).content)
    with app.producer_pool.acquire() as producer:
        for number, task in enumerate(tasks):
            content = task["content"]
            job.apply_async((task["_id"], number, content["text"], content["model"]), producer=producer)


def main() -> None:
    """Wait for the start, feed the queue, and stay until the standard input is closed."""
    session()
    say_ready()
    sys.stdin.readline()
    feed()
    sys.stdin.read()


if __name__ == "__main__":
    main()
