"""The bare script, with asyncio, aiohttp and orjson. It keeps none of the service's promises.

It loses its work when it is killed, has no quotas, and stops at the first error. `python -m bench.peers.script TASKS`,
with `--uvloop` on uvloop's event loop. It computes its vectors with the service's own mock, which costs 2 µs a vector.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any

import aiohttp
import orjson
import uvloop

from stages.embedder.providers.mock import vectors

CONCURRENCY = 32
"""Concurrent PATCHes; the fastest of 8, 16, 32, 64 and 128 when measured."""
BATCH = 256
"""Tasks embedded together."""
PAGE = 4096
"""Tasks asked for at once."""


async def main(task_count: int) -> None:
    """Process pending tasks until this number is done."""
    auth = aiohttp.encode_basic_auth(os.environ["OAUTH2_CLIENT_ID"], os.environ["OAUTH2_CLIENT_SECRET"])
    url = os.environ["API_BASE_URL"] + "/api/ai-tasks/"
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        form = {"grant_type": "client_credentials"}
        async with session.post(os.environ["OAUTH2_TOKEN_URL"], data=form, headers={"Authorization": auth}) as response:
            token = (await response.json())["access_token"]
        await wait_for_start()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        done = 0
        while done < task_count:
            async with session.get(f"{url}pending?limit={PAGE}", headers=headers) as response:
                tasks = orjson.loads(await response.read())
            results = chain.from_iterable(embedded(tasks[at : at + BATCH]) for at in range(0, len(tasks), BATCH))
            # The senders share the iterator: no connection waits for the last one of a batch.
            await asyncio.gather(*(send(session, url, headers, results) for _ in range(CONCURRENCY)))
            done += len(tasks)


def embedded(tasks: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each task with its vector."""
    return zip(tasks, vectors(tasks[0]["content"]["model"], [task["content"]["text"] for task in tasks]), strict=True)


async def send(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], results: Iterator[tuple[Any, Any]]
) -> None:
    """PATCH one result after another."""
    for task, row in results:
        body = orjson.dumps({"state": "succeeded", "result": row}, option=orjson.OPT_SERIALIZE_NUMPY)
        async with session.patch(url + task["_id"], data=body, headers=headers) as response:
            await response.read()
            response.raise_for_status()


async def wait_for_start() -> None:
    """Say that the script is ready, and wait for a line on the standard input."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    run = uvloop.run if "--uvloop" in sys.argv else asyncio.run
    run(main(int(sys.argv[1])))
