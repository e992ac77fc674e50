"""A stage does not outlive its supervisor.

A supervisord that is killed leaves its programs running: they hold sockets, ports and locks, and the next
supervisord's programs cannot start beside them. So each program asks the kernel for SIGTERM when its parent dies
(`prctl(2)`, PR_SET_PDEATHSIG), and looks at its parent's pid besides. The parent may also have died before it asked,
since Python needs up to seconds to start, and an orphan has another parent by the time it can look. So the plug-in of
supervisord tells each program the pid of its supervisord in SUPERVISORD_PID.

Only a program that supervisord started is bound in this way (supervisord sets SUPERVISOR_ENABLED). One that a person
starts from a shell goes on when the shell ends.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
SUPERVISORD_PID = "SUPERVISORD_PID"
"""The environment variable with the pid of the supervisord that started this process."""
ORPHAN_ENDS_S = 1.5
"""How long an orphan may drain before it ends."""


class SupervisorWatch:
    """Tells whether the supervisord that started this process is gone."""

    def __init__(self) -> None:
        self._parent = os.getppid() if os.environ.get("SUPERVISOR_ENABLED") else None
        if self._parent is not None:
            supervisord = int(os.environ.get(SUPERVISORD_PID) or self._parent)
            if not _is_alive(supervisord):  # it died while this program was starting
                self._parent = supervisord
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    def is_gone(self) -> bool:
        """Whether the parent has died: an orphan gets another parent at once."""
        return self._parent is not None and os.getppid() != self._parent


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True
