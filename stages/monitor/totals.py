"""The metrics of many processes as those of one service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.wire.parts import Family, Sample

Series = tuple[str, tuple[tuple[str, str], ...]]
"""The identity of a series: its name and labels."""
SUMMED = frozenset({"counter", "histogram"})
"""The kinds that are added; of the other kinds the largest value counts."""


def merge(sources: Iterable[tuple[Sequence[Family], bool]]) -> list[Family]:
    """Merge metrics, given as (families, whether the process is alive), in the order of their first appearance.

    The counters of a dead process still count; its gauges do not.
    """
    merged: dict[str, Family] = {}
    values: dict[str, dict[Series, float]] = {}
    for families, is_alive in sources:
        for family in families:
            known = merged.setdefault(family.name, family)
            totals = values.setdefault(family.name, {})
            if known.kind != family.kind:
                continue  # from another version of the service: different kinds cannot be added
            if family.kind in SUMMED:
                for series, value in _series(family):
                    totals[series] = totals.get(series, 0.0) + value
            elif is_alive:
                for series, value in _series(family):
                    totals[series] = max(totals.get(series, value), value)
    return [Family(f.name, f.kind, f.help, _samples(f.kind, values[f.name])) for f in merged.values()]


def _series(family: Family) -> Iterable[tuple[Series, float]]:
    for sample in family.samples:
        yield (sample.name, tuple(sorted(sample.labels.items()))), sample.value


def _samples(kind: str, totals: dict[Series, float]) -> list[Sample]:
    ordered = sorted(totals, key=_place) if kind == "histogram" else totals
    return [Sample(name, dict(labels), totals[name, labels]) for name, labels in ordered]


def _place(series: Series) -> tuple[list[tuple[str, str]], bool, float, str]:
    """The sort key of a histogram's sample: labels together, buckets in rising order, then count and sum."""
    name, labels = series
    bound = dict(labels).get("le")
    group = [label for label in labels if label[0] != "le"]
    return group, bound is None, float(bound or 0), name
