"""`text_statistics`: counts the characters and words of a text; needs no provider."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from common.task_types import Deferral, Outcome, Providers, TaskType


class TextStatisticsContent(msgspec.Struct):
    """The `content` of a task in the API."""

    text: str


class TextStatistics(TaskType[TextStatisticsContent]):
    """One file: the type's name, its content, its batch key, its token estimate, and what is done with a batch."""

    name = "text_statistics"
    content = TextStatisticsContent

    def invalid(self, content: TextStatisticsContent) -> str | None:
        """A sentence for the task's error, or None; it must not repeat the text."""
        return None if content.text else "content.text is empty"

    def key(self, content: TextStatisticsContent) -> str:
        """All such tasks may share a batch."""
        return ""

    def tokens(self, content: TextStatisticsContent) -> int:
        """It costs no tokens."""
        return 0

    def process(
        self, key: str, contents: Sequence[TextStatisticsContent], providers: Providers
    ) -> Sequence[Outcome | Deferral]:
        """One JSON document for each content, in their order."""
        return [
            msgspec.json.encode({"characters": len(content.text), "words": len(content.text.split())})
            for content in contents
        ]
