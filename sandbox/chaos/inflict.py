"""Carries out the faults of a plan on a running pipeline and its sandbox, and notes what really happened and when."""

import contextlib
import heapq
import itertools
import re
import signal
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psutil

from sandbox.chaos.kinds import LOST_RESPONSES, WRONG_RESPONSES, Inflicted
from sandbox.chaos.plan import PlannedFault
from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline

RETRY_S = 0.1
"""How soon to try again what must happen, such as the start of a program that is still stopping."""
KILLED_WHILE_STOPPING = re.compile(rb"stopped: \S+ \(terminated by SIGKILL\)")
"""A line in supervisord's log: the program did not stop within its `stopwaitsecs`."""
THROTTLE_HEADERS = {"retry-after": "1"}

_GONE = (ProcessLookupError, psutil.NoSuchProcess, OSError, xmlrpc.client.Error, KeyError)
"""The process or supervisord is just not there."""


class Inflictor:
    """Begins faults and ends them in time. Call `work` often; `restore` ends all that is still in force."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.inflicted: list[Inflicted] = []
        self._pipeline = pipeline
        self._sandbox: Sandbox = pipeline.sandbox
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._begin = {
            "kill": self._kill,
            "stop": self._stop,
            "long stop": self._stop,
            "restart": self._restart,
            "orphans": self._orphans,
            "outage": self._outage,
            "throttle": self._wrong,
            "wrong response": self._wrong,
            "lost response": self._wrong,
        }

    def begin(self, fault: PlannedFault) -> None:
        """Begin a fault; one that cannot be carried out is noted as skipped."""
        now = time.time()
        note = Inflicted(fault.kind, fault.target, now, now)
        try:
            self._begin[fault.kind](fault, note)
        except _GONE:
            self.inflicted.append(replace(note, skipped=True))

    def work(self) -> None:
        """End the faults whose time has come."""
        while self._due and self._due[0][0] <= time.time():
            heapq.heappop(self._due)[2]()

    def restore(self) -> None:
        """End all faults that are in force, whether or not their time has come."""
        while self._due:
            heapq.heappop(self._due)[2]()
            time.sleep(0.0 if not self._due else 0.01)

    # One method for each kind. It appends its note when the fault is over.

    def _kill(self, fault: PlannedFault, note: Inflicted) -> None:
        self._process(fault.target).kill()
        self.inflicted.append(note)

    def _stop(self, fault: PlannedFault, note: Inflicted) -> None:
        process = self._process(fault.target)
        process.send_signal(signal.SIGSTOP)

        def end() -> None:
            with contextlib.suppress(*_GONE):  # it was killed while it was stopped
                process.send_signal(signal.SIGCONT)
            self.inflicted.append(replace(note, ended=time.time()))

        self._later(fault.lasts_s, end)

    def _restart(self, fault: PlannedFault, note: Inflicted) -> None:
        killed_before = self._killed_while_stopping()
        if fault.target == "all":
            self._pipeline.supervisor("stopAllProcesses", False)
        else:
            self._process(fault.target)
            self._pipeline.supervisor("stopProcess", _full_name(fault.target), False)

        def start() -> None:
            try:
                programs = self._pipeline.programs()
                states = [programs[fault.target]] if fault.target != "all" else list(programs.values())
                if any(state["statename"] == "STOPPING" for state in states):
                    self._later(RETRY_S, start)
                    return
                for state in states:
                    if state["statename"] in ("STOPPED", "EXITED", "FATAL"):
                        self._pipeline.supervisor("startProcess", _full_name(state["name"]), False)
            except _GONE:  # a new supervisord starts all programs by itself
                states = []
            kind = "killed by supervisord" if self._killed_while_stopping() > killed_before else note.kind
            self.inflicted.append(replace(note, kind=kind, ended=time.time()))

        self._later(fault.lasts_s, start)

    def _orphans(self, fault: PlannedFault, note: Inflicted) -> None:
        self._pipeline.kill_supervisord()

        def start() -> None:
            self._pipeline.start()
            self.inflicted.append(replace(note, ended=time.time()))

        self._later(fault.lasts_s, start)

    def _outage(self, fault: PlannedFault, note: Inflicted) -> None:
        self._sandbox.down(fault.target)
        if fault.target == "oauth2":
            self._sandbox.revoke()  # otherwise the token endpoint would not be needed

        def end() -> None:
            self._sandbox.up(fault.target)
            self.inflicted.append(replace(note, ended=time.time()))

        self._later(fault.lasts_s, end)

    def _wrong(self, fault: PlannedFault, note: Inflicted) -> None:
        number = self._sandbox.fault(**fault_fields(fault))

        def end() -> None:
            applied = {told["number"]: told["applied"] for told in self._sandbox.faults()}
            self._sandbox.clear_faults(number)
            responses = applied[number] if fault.kind == "lost response" else 0
            self.inflicted.append(replace(note, ended=time.time(), responses=responses))

        self._later(fault.lasts_s, end)

    def _killed_while_stopping(self) -> int:
        return len(KILLED_WHILE_STOPPING.findall(self._pipeline.log.read_bytes()))

    def _process(self, program: str) -> psutil.Process:
        """The running process of a program; raises `ProcessLookupError` if there is none."""
        pid = int(self._pipeline.programs()[program]["pid"])
        if not pid:  # a signal to pid 0 would hit our own group
            raise ProcessLookupError(program)
        return psutil.Process(pid)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.time() + seconds, next(self._order), action))


def fault_fields(fault: PlannedFault) -> dict[str, Any]:
    """The fields of the sandbox's fault (faults.py)."""
    if fault.kind == "throttle":
        status = 503 if fault.target == "oauth2" else 429
        body = '{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'
        return {"service": fault.target, "status": status, "headers": THROTTLE_HEADERS, "body": body}
    recipes = WRONG_RESPONSES if fault.kind == "wrong response" else LOST_RESPONSES
    return dict(recipes[fault.target])


def _full_name(program: str) -> str:
    """The program with its group, as supervisord wants it."""
    return f"embedder:{program}" if program.startswith("embedder") else program
