"""The report of a circuit breaker: each change once in the log, state and reason in the metrics."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from common.failures.breaker import Breaker
from common.failures.retry import Backoff
from common.process.breaker_report import tell
from common.process.metrics import REGISTRY


def told(breaker: Breaker) -> list[Any]:
    with capture_logs() as logs:
        tell(breaker)
    return [(log["event"], log["reason"]) for log in logs]


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"service": "a test", **labels})


def test_each_change_of_a_breaker_is_logged_once_and_shown_in_the_metrics() -> None:
    breaker = Breaker("a test", 2, Backoff(10.0, 1.0, 10.0))
    breaker.failed(0.0, "it hangs")
    assert told(breaker) == []
    breaker.failed(0.0, "it hangs")
    breaker.failed(0.0, "it hangs")
    assert told(breaker) == [("breaker_opened", "it hangs")]
    assert told(breaker) == []
    assert (shown("circuit_breaker_state"), shown("circuit_breaker_reason", reason="it hangs")) == (1, 1)
    assert breaker.allows(11.0)
    breaker.failed(11.0, "it breaks")
    assert told(breaker) == [("breaker_half_open", "it hangs"), ("breaker_opened", "it breaks")]
    assert shown("circuit_breaker_reason", reason="it hangs") is None
    assert shown("circuit_breaker_reason", reason="it breaks") == 1
    assert breaker.allows(22.0)
    breaker.succeeded()
    assert told(breaker) == [("breaker_half_open", "it breaks"), ("breaker_closed", "")]
    assert (shown("circuit_breaker_state"), shown("circuit_breaker_reason", reason="it breaks")) == (0, None)
