"""What a process logs: JSON lines that say which stage they are from, whichever thread wrote them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import logging, threading
import structlog
from common.process import logs

log = structlog.get_logger()
logs.set_up("embedder_07", "INFO")

def talk(name):
    log.info("said", by=name)
    logging.getLogger("library").warning("watch %s", "out")

talk("main")
thread = threading.Thread(target=talk, args=("thread",))
thread.start()
thread.join()
log.debug("too quiet")
"""


def lines() -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_line_names_its_stage_whichever_thread_wrote_it() -> None:
    logged = lines()
    assert [line.get("by", line.get("library")) for line in logged] == ["main", "library", "thread", "library"]
    assert {line["stage"] for line in logged} == {"embedder_07"}


def test_a_line_begins_with_what_people_look_for() -> None:
    assert [list(line)[:4] for line in lines()] == [["time", "level", "stage", "event"]] * 4


def test_a_librarys_line_has_none_of_its_arguments() -> None:
    assert [line["message"] for line in lines() if "message" in line] == ["watch %s"] * 2
