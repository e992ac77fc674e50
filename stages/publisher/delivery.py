"""The API as the publisher sees it: each stored result is PATCHed with the body that body.py makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.api.patches import Patches
from common.settings.settings import Settings
from common.wire.messages import Result
from stages.publisher.actions import SendPatch
from stages.publisher.body import body
from stages.publisher.state import CONNECTIONS


class Delivery:
    """What the API answers comes back as `Answers` events."""

    def __init__(
        self,
        settings: Settings,
        stored: Callable[[str], Result],
        post: Callable[[Any], None],
        watch: Callable[[int, Callable[[], None]], None],
    ) -> None:
        self._stored = stored
        self._patches = Patches(settings, CONNECTIONS, post, watch)
        self.tick = self._patches.tick

    def patch(self, action: SendPatch) -> None:
        """Begin a PATCH."""
        self._patches.begin(action.task_id, body(self._stored(action.task_id)), action.token)

    def close(self) -> None:
        """Cut what is under way: it is in the outbox, and will be sent again."""
        self._patches.close()
