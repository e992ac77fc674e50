"""Sends claims (PATCH `in_progress`) to the API, in the same way as the publisher sends results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.api.patch_queue import with_spare
from common.api.patches import Patches
from common.settings.settings import Settings
from stages.fetcher.actions import Claim

BODY = b'{"state":"in_progress"}'


class ClaimRequests:
    """The edge for claims; the API's responses come back as `ApiResponses` events."""

    def __init__(
        self, settings: Settings, post: Callable[[Any], None], watch: Callable[[int, Callable[[], None]], None]
    ) -> None:
        self._patches = Patches(settings, with_spare(settings.api_connections), post, watch)
        self.tick = self._patches.tick
        self.close = self._patches.close

    def claim(self, action: Claim) -> None:
        """Begin a PATCH; its response comes later."""
        self._patches.begin(action.task_id, BODY, action.token)
