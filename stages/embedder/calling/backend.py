"""A provider together with what this process knows about it."""

from __future__ import annotations

from typing import NamedTuple

from stages.embedder.calling.gate import Gate
from stages.embedder.calling.learned_caps import LearnedCaps
from stages.embedder.providers import Provider


class Backend(NamedTuple):
    """A provider, and what this process knows about it; shared by all threads."""

    provider: Provider
    gate: Gate
    """When it may be asked."""
    caps: LearnedCaps
    """How large a request to it may be."""
