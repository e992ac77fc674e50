"""The edge to the API: sends each stored result as a PATCH, with the body that body.py makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.api.patch_queue import with_spare
from common.api.patches import Patches
from common.settings.settings import Settings
from common.wire.messages import Result
from stages.publisher.actions import SendPatch
from stages.publisher.body import body


class Delivery:
    """Sends PATCHes; their responses come back as `ApiResponses` events."""

    def __init__(
        self,
        settings: Settings,
        stored: Callable[[str], Result],
        post: Callable[[Any], None],
        watch: Callable[[int, Callable[[], None]], None],
    ) -> None:
        self._stored = stored
        self._patches = Patches(settings, with_spare(settings.api_connections), post, watch)
        self.tick = self._patches.tick

    def patch(self, action: SendPatch) -> None:
        """Start the PATCH of a stored result."""
        self._patches.begin(action.task_id, body(self._stored(action.task_id)), action.token)

    def close(self) -> None:
        """Abort the PATCHes under way: their results are in the outbox, and are sent again after the next start."""
        self._patches.close()
