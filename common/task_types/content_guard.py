"""The one guard around code that reads a task's content: whatever it raises becomes that task's failure.

A task type may come from another package, and a library in Rust raises `pyo3_runtime.PanicException`, which is not an
`Exception`. Without the guard, one content could end the process again and again, and with it the work on all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from common.wire.messages import Failure

T = TypeVar("T")
_SHOWN = (msgspec.MsgspecError, UnicodeDecodeError)
"""Their messages say where the content is wrong, and do not repeat its text."""


def guarded(task_type: str, work: Callable[[], T]) -> T | Failure:
    """Do the work on one task's content; returns its result, or the failure `invalid_content`.

    The message of an unexpected error is not shown, because it may contain the text of the task.
    """
    try:
        return work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except _SHOWN as error:
        return Failure("invalid_content", f"content does not fit {task_type}: {error}")
    except BaseException as error:  # noqa: BLE001  one content must not harm the others
        return Failure("invalid_content", f"content of {task_type} cannot be processed: {type(error).__name__}")
