"""What a process logs: lines that name their stage, as JSON or, on a terminal, for people."""

from __future__ import annotations

import json
import os
import pty
import re
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
    log.info("task_seen", by=name)
    logging.getLogger("library").warning("watch %s", "out")

talk("main")
thread = threading.Thread(target=talk, args=("thread",))
thread.start()
thread.join()
log.debug("too quiet")
"""

FOR_PEOPLE = """
import structlog
from common.process import logs

log = structlog.get_logger()
logs.set_up("fetcher", "INFO")
log.info("tasks_leased", task_ids=["a", "b"], reason="two words")
log.warning("page_element_skipped", reason="\\x1b[2J\\nforged line")
log.debug("too quiet")
"""


def lines(program: str = PROGRAM) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def on_a_terminal(program: str) -> str:
    """What a program writes to a terminal."""
    ours, its = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", program], stdout=its, close_fds=True) as process:
        os.close(its)
        written = b""
        try:
            while chunk := os.read(ours, 4096):
                written += chunk
        except OSError:  # Linux reports the closed terminal so
            pass
        assert process.wait(30) == 0
    os.close(ours)
    return written.decode()


def without_colours(text: str) -> list[str]:
    return re.sub(r"\x1b\[\d*m", "", text).splitlines()


def test_every_line_names_its_stage_whichever_thread_wrote_it() -> None:
    logged = lines()
    assert [line.get("by", line.get("library")) for line in logged] == ["main", "library", "thread", "library"]
    assert {line["stage"] for line in logged} == {"embedder_07"}


def test_a_line_begins_with_what_people_look_for() -> None:
    assert [list(line)[:4] for line in lines()] == [["time", "level", "stage", "event"]] * 4


def test_a_line_of_a_library_does_not_contain_its_arguments() -> None:
    assert [line["message"] for line in lines() if "message" in line] == ["watch %s"] * 2


def test_the_time_in_a_json_line_is_utc() -> None:
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["time"]) for line in lines())


def test_an_exception_is_one_field_of_a_json_line() -> None:
    (line,) = lines(
        "import structlog; from common.process import logs; logs.set_up('fetcher', 'INFO')\n"
        "try: int('x')\nexcept ValueError: structlog.get_logger().exception('parse_failed')"
    )
    assert "ValueError: invalid literal" in line["exception"]


def test_a_line_on_a_terminal_has_time_level_stage_and_event_in_this_order() -> None:
    first, second = without_colours(on_a_terminal(FOR_PEOPLE))
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d \[info +\] fetcher +tasks_leased +task_ids=\['a', 'b'\] reason=two words", first
    ), first
    assert re.match(r"\d\d:\d\d:\d\d \[warning +\] fetcher +page_element_skipped +reason=", second), second


def test_a_line_on_a_terminal_is_coloured_and_a_json_line_is_not() -> None:
    assert "\x1b[" in on_a_terminal(FOR_PEOPLE)
    assert all("\x1b[" not in line["event"] for line in lines())


def test_a_value_from_outside_cannot_forge_a_line_on_a_terminal_or_control_it() -> None:
    written = on_a_terminal(FOR_PEOPLE)
    assert "\x1b[2J" not in written
    assert len(written.splitlines()) == 2
