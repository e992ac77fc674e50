"""External services go down for longer than a lease: no task fails, and none is sent or paid twice."""

from __future__ import annotations

import pytest

from sandbox.pipeline import Pipeline
from tests.faults.conftest import IN_SLOTS, SHORT_LEASE_S
from tests.faults.ledger import Ledger

TASKS = 3000
CONNECTIONS = 16
MAY_COST = {  # service: accepted twice, paid twice; requests under way when it breaks have no known outcome
    "api": (CONNECTIONS, 0),
    "oauth2": (0, 0),
    "openai": (0, 2 * IN_SLOTS),
}


@pytest.mark.parametrize("service", MAY_COST)
def test_an_outage_longer_than_a_lease_loses_no_task(service: str, short_lease: Pipeline, short_ledger: Ledger) -> None:
    pipeline, sandbox, ledger = short_lease, short_lease.sandbox, short_ledger
    sandbox.queue(TASKS)
    ledger.wait_accepted(TASKS // 5)
    sandbox.down(service)
    sandbox.revoke()  # otherwise the token endpoint would not be needed
    ledger.mark_fault()
    pipeline.run_for(1.3 * SHORT_LEASE_S)
    sandbox.up(service)
    ledger.wait_done()
    cost = ledger.cost(f"{service} down for longer than a lease")
    accepted_twice, paid_twice = MAY_COST[service]
    assert (cost.tasks, cost.lost, cost.failed, cost.bytes_differ) == (TASKS, 0, 0, 0)
    assert cost.accepted_twice <= accepted_twice
    assert cost.paid_twice <= paid_twice
