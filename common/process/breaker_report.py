"""Reports a circuit breaker: each change once in the log; its state and reason in the metrics."""

from __future__ import annotations

import structlog

from common.failures.breaker import Breaker, State
from common.process import metrics

_EVENTS = {State.OPEN: "breaker_opened", State.HALF_OPEN: "breaker_half_open", State.CLOSED: "breaker_closed"}
_log = structlog.get_logger()


def tell(breaker: Breaker) -> None:
    """Log and count the changes since the last call."""
    for change in breaker.changes():
        level = _log.warning if change.state is State.OPEN else _log.info
        level(_EVENTS[change.state], service=change.service, reason=change.reason)
        metrics.show_breaker(change.service, change.state, change.reason)
