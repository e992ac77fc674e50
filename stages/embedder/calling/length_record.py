"""The lengths of vectors that earlier runs have learnt, on disk: `STATE_DIR/vector_lengths.json`, model → length.

Only models whose length neither a setting nor the table of known models gives are in it. It keeps the vectors of one
model alike after a restart, when the first response may be a wrong one. All embedders of the pipeline share the file:
what the first one has learnt counts for the others. A file that cannot be read is ignored, and replaced when a length
is learnt.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import structlog

from common.ownership import held, open_lock
from stages.embedder.providers.odd_forms import LONGEST_VECTOR

FILE = "vector_lengths.json"
LOCK = "vector_lengths.lock"
LOCK_TIMEOUT_S = 5.0
"""Seconds to wait for another embedder that writes the file."""
MAX_MODELS = 1000
"""Number of models that are kept; the oldest are forgotten first."""

log = structlog.get_logger()


class LengthRecord:
    """The file as one embedder has it. It never raises: without a usable file, the lengths are learnt again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._version = (0, 0)
        self._lengths: dict[str, int] = {}

    def get(self, model: str) -> int | None:
        """The length of the model's vectors; None if no embedder has learnt it."""
        if model not in self._lengths:
            self._read_changes()
        return self._lengths.get(model)

    def put(self, model: str, length: int) -> int:
        """Record a length, unless another embedder has recorded one: then that one is returned, and counts."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = open_lock(self._folder / LOCK)
            try:
                with held(lock, LOCK_TIMEOUT_S):
                    self._read_changes()
                    if model not in self._lengths:
                        self._lengths[model] = length
                        self._write()
            finally:
                os.close(lock)
        except OSError as error:
            log.warning("vector_length_not_recorded", model=model, length=length, reason=str(error))
        return self._lengths.setdefault(model, length)

    def _read_changes(self) -> None:
        """Read the file again if another process has changed it."""
        try:
            found = self._path.stat()
            version = (found.st_mtime_ns, found.st_ino)
            if version == self._version:
                return
            self._version = version
            self._lengths = {**self._lengths, **_valid(json.loads(self._path.read_bytes()))}
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            log.warning("vector_lengths_unreadable", file=str(self._path), reason=type(error).__name__)

    def _write(self) -> None:
        while len(self._lengths) > MAX_MODELS:
            del self._lengths[next(iter(self._lengths))]
        draft = self._path.with_suffix(".new")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(self._lengths, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)


def _valid(value: Any) -> dict[str, int]:
    """The entries that can be true; raises `ValueError` if there are none at all because it is another file."""
    if not isinstance(value, dict):
        raise ValueError("it is not an object")  # noqa: TRY004  one error for all that is wrong with the file
    return {
        model: length
        for model, length in value.items()
        if isinstance(length, int) and not isinstance(length, bool) and 1 <= length <= LONGEST_VECTOR
    }
