"""Runs blocking code in simulated time: on a thread of its own, but only while the simulator waits for it.

The threads of an embedder's worker pool block while they wait for a provider. Here such a thread calls `pause` instead,
and the simulator goes on until the pause is over. Never do two of them run at the same time, so a run depends on its
seed only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_here = threading.local()


class Ended(BaseException):
    """Raised in a thread whose process has died."""


class LockstepThread:
    """One call of a function, which may `pause`."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.outcome: Any = None
        """What the function returned."""
        self.finished = False
        self.pauses = 0
        """How often it has paused: tells the end of one pause from that of an earlier one."""
        self.may_be_woken = False
        """Whether the present pause ends early if the embedder is told to stop."""
        self._work = work
        self._error: BaseException | None = None
        self._is_ending = False
        self._pause_s = 0.0
        self._may_run, self._has_paused = threading.Lock(), threading.Lock()
        self._may_run.acquire()
        self._has_paused.acquire()
        threading.Thread(target=self._run, daemon=True).start()

    def resume(self) -> float | None:
        """Let it run until its next pause; returns the length of this in seconds, or None if it has finished."""
        self._may_run.release()
        self._has_paused.acquire()
        if self._error is not None:
            raise self._error
        return None if self.finished else self._pause_s

    def end(self) -> None:
        """End it at its present pause."""
        if not self.finished:
            self._is_ending = True
            self.resume()

    def _run(self) -> None:
        _here.thread = self
        self._may_run.acquire()
        try:
            if not self._is_ending:
                self.outcome = self._work()
        except Ended:
            pass
        except BaseException as error:  # noqa: BLE001  raised again in the simulator
            self._error = error
        self.finished = True
        self._has_paused.release()

    def _pause(self, seconds: float, *, may_be_woken: bool) -> None:
        if not self._is_ending:
            self._pause_s, self.may_be_woken = seconds, may_be_woken
            self.pauses += 1
            self._has_paused.release()
            self._may_run.acquire()
        if self._is_ending:
            raise Ended


def pause(seconds: float, *, may_be_woken: bool = False) -> None:
    """Wait for simulated seconds; to be called by the function of a `LockstepThread`."""
    _here.thread._pause(max(seconds, 0.0), may_be_woken=may_be_woken)
