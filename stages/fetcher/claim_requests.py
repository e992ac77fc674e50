"""The edge for claims: PATCH `in_progress`, through the same libcurl as the publisher's PATCHes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.api.patches import Patches
from common.settings.settings import Settings
from stages.fetcher.claiming import CONNECTIONS, Claim

BODY = b'{"state":"in_progress"}'


class Claims:
    """What the API answers comes back as `Answers` events."""

    def __init__(
        self, settings: Settings, post: Callable[[Any], None], watch: Callable[[int, Callable[[], None]], None]
    ) -> None:
        self._patches = Patches(settings, CONNECTIONS, post, watch)
        self.tick = self._patches.tick
        self.close = self._patches.close

    def claim(self, action: Claim) -> None:
        """Begin a PATCH."""
        self._patches.begin(action.task_id, BODY, action.token)
