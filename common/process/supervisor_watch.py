"""A stage does not outlive its supervisor.

A supervisord that is killed leaves its programs running: they hold sockets, ports and locks, and the next supervisord's
programs cannot start beside them. So each program asks the kernel for SIGTERM when its parent dies (`prctl(2)`,
PR_SET_PDEATHSIG), and looks at its parent's pid besides, since the parent may have died before it asked.

Only a program that supervisord started is bound in this way (supervisord sets SUPERVISOR_ENABLED). One that a person
starts from a shell goes on when the shell ends.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
ORPHAN_ENDS_S = 1.5
"""How long an orphan may drain before it ends."""


class SupervisorWatch:
    """Tells whether the supervisord that started this process is gone."""

    def __init__(self) -> None:
        self._parent = os.getppid() if os.environ.get("SUPERVISOR_ENABLED") else None
        if self._parent is not None:
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    def is_gone(self) -> bool:
        """Whether the parent has died: an orphan gets another parent at once."""
        return self._parent is not None and os.getppid() != self._parent
