"""What the monitor asks of its edge."""

from __future__ import annotations

from typing import NamedTuple

from stages.monitor.view import View


class PublishView(NamedTuple):
    """Action: answer requests from this view from now on."""

    view: View
    """The latest view."""
