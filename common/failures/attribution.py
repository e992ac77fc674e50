"""Whose fault is a failure: the item's, or that of the scope it was sent to? Decided on evidence, for all stages.

A status does not say whose fault a failure is. What others of the same scope got at about the same time does.
Scopes are nested: a text belongs to a model at a provider, which belongs to the provider; a task's PATCH belongs to an
endpoint, which belongs to the API. A scope is a tuple from the widest to the narrowest name: `("api", "PATCH")`.

    refused, and another item of the same scope was served after the item's first refusal  → the item is to blame
    refused, and nothing else of the scope has been served since                            → not known yet
    the same for at least two items                                                          → the scope is to blame

Three rules keep an outage from being blamed on an item:

- Evidence must come *after* the item's first refusal: what was served before an outage began proves nothing.
- Evidence is in force only while no item without evidence against it has been refused since: such a refusal is the
  first sign that the scope fails, and until something is served again no refusal is counted against any item.
- Evidence lasts `NEAR_S`: a success of an hour ago says nothing about now.

A success counts for the scope and for all that contain it. Times are monotonic seconds.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec

NEAR_S = 60.0
"""How long a success is evidence. The longest back-off between two tries of one item is as long."""

Scope = tuple[str, ...]
"""From the widest to the narrowest: `("openai", "text-embedding-3-small")` lies within `("openai",)`."""


class Blame(Enum):
    """Who is at fault, as far as the evidence goes."""

    ITEM = "item"
    """Others of the same scope were served meanwhile: only this item is refused."""
    SCOPE = "scope"
    """Several items were refused, and none has been served since: the scope fails."""
    UNKNOWN = "unknown"
    """One item was refused, and nothing else tells whether others would be served."""


class Finding(NamedTuple):
    """What the evidence says about one refusal."""

    blame: Blame
    scope: Scope
    """The scope that fails: the widest in which nothing is served. For `Blame.ITEM` the scope of the item."""
    counted: int
    """How many refusals of this item count against it so far."""


class _Case(msgspec.Struct):
    """One item that was refused."""

    first_refused_at: float
    counted: int = 0


class _Record(msgspec.Struct):
    """What is known of one scope."""

    latest: tuple[str, float] = ("", float("-inf"))
    """The item that was served last, and when."""
    before: tuple[str, float] = ("", float("-inf"))
    """The last one before it that is another item, and when."""
    doubted_at: float = float("-inf")
    """When an item without evidence against it was refused last."""
    doubtful: set[str] = msgspec.field(default_factory=set)
    """Items that were refused without evidence since something was served last."""

    def served_at(self, other_than: str) -> float:
        """When another item was served last."""
        return self.before[1] if self.latest[0] == other_than else self.latest[1]


class Attribution:
    """The evidence of one process. Forget an item when it is over: cases are kept until then."""

    def __init__(self) -> None:
        self._records: dict[Scope, _Record] = {}
        self._chains: dict[Scope, tuple[_Record, ...]] = {}
        """Scope → its record and those of all that contain it."""
        self._cases: dict[tuple[Scope, str], _Case] = {}

    def served(self, item: str, scope: Scope, now: float) -> None:
        """Tell that an item was served: its scope works, and all scopes that contain it."""
        if self._cases:  # this is called for each task that goes well, so it is kept short
            self._cases.pop((scope, item), None)
        for record in self._records_of(scope):
            if record.latest[0] != item:
                record.before = record.latest
            record.latest = (item, now)
            if record.doubtful:
                record.doubtful.clear()

    def refused(self, item: str, scope: Scope, now: float) -> Finding:
        """Tell that an item was refused; returns who is to blame."""
        record = self._records_of(scope)[0]
        case = self._cases.setdefault((scope, item), _Case(now))
        served_at = record.served_at(item)
        if (
            served_at > case.first_refused_at
            and now - served_at <= NEAR_S
            and not self._in_doubt(record, served_at, item)
        ):
            case.counted += 1
            return Finding(Blame.ITEM, scope, case.counted)
        for wider in self._records_of(scope):
            wider.doubtful.add(item)
            wider.doubted_at = now
        blame = Blame.SCOPE if len(record.doubtful) > 1 else Blame.UNKNOWN
        return Finding(blame, self._failing(scope), case.counted)

    def has_evidence(self, item: str, scope: Scope, since: float) -> bool:
        """Whether another item of the scope was served after `since`."""
        record = self._records.get(scope)
        return record is not None and record.served_at(item) > since

    def last_served_at(self, scope: Scope) -> float:
        """When anything in the scope was served last; minus infinity if nothing was."""
        record = self._records.get(scope)
        return record.latest[1] if record else float("-inf")

    def is_failing(self, scope: Scope) -> bool:
        """Whether several items were refused without evidence, and nothing in the scope was served since."""
        record = self._records.get(scope)
        return record is not None and len(record.doubtful) > 1

    def forget(self, item: str, scope: Scope) -> None:
        """Drop what is known of an item that is over."""
        self._cases.pop((scope, item), None)
        for within in _and_wider(scope):
            if record := self._records.get(within):
                record.doubtful.discard(item)

    def _records_of(self, scope: Scope) -> tuple[_Record, ...]:
        """The records of the scope and of all that contain it."""
        found = self._chains.get(scope)
        if found is None:
            found = self._chains[scope] = tuple(
                self._records.setdefault(within, _Record()) for within in _and_wider(scope)
            )
        return found

    @staticmethod
    def _in_doubt(record: _Record, served_at: float, item: str) -> bool:
        """Whether another item has been refused without evidence since the latest success."""
        return record.doubted_at > served_at and bool(record.doubtful - {item})

    def _failing(self, scope: Scope) -> Scope:
        """The widest scope around this one in which nothing was served since the items in it were refused."""
        found = scope
        for wider in list(_and_wider(scope))[1:]:
            record = self._records[wider]
            inner = self._records[found]
            if len(record.doubtful) > len(inner.doubtful) and record.served_at("") < record.doubted_at:
                found = wider
        return found


def _and_wider(scope: Scope) -> tuple[Scope, ...]:
    """The scope itself, then each one that contains it."""
    return tuple(scope[:length] for length in range(len(scope), 0, -1))
