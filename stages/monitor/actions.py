"""What the monitor asks of its edge."""

from __future__ import annotations

from typing import NamedTuple

from stages.monitor.view import View


class PublishView(NamedTuple):
    """Action: answer requests from this view from now on."""

    view: View
    """The latest view."""


class AskExpected(NamedTuple):
    """Action: read from the settings which instances are expected now."""


class ExpectedInstances(NamedTuple):
    """Event: these instances are expected to be alive."""

    instances: list[str]
    """Every process that supervisord starts by the settings of now."""
