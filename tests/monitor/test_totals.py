"""The metrics of many processes, added up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from common.wire.parts import Family, Sample
from stages.monitor.totals import merge
from tests.monitor.beats import counter, gauge, histogram, values


def test_counters_and_histograms_are_summed_by_their_labels() -> None:
    merged = merge([
        ([counter("done", 3, status="ok"), histogram("took", 1, 2, 5)], True),
        ([counter("done", 4, status="ok"), counter("done", 1, status="bad"), histogram("took", 0, 1, 1)], True),
    ])  # fmt: skip
    assert values(merged) == {
        "done_total{status=ok}": 7,
        "done_total{status=bad}": 1,
        "took_bucket{le=1.0}": 1,
        "took_bucket{le=2.0}": 3,
        "took_bucket{le=+Inf}": 6,
        "took_count": 6,
        "took_sum": 60,
    }
    assert [family.name for family in merged] == ["done", "took"]


def test_the_largest_value_of_a_gauge_is_shown_for_each_set_of_labels() -> None:
    merged = merge([
        ([gauge("waiting", -4), gauge("memory", 10, instance="a")], True),
        ([gauge("waiting", -7), gauge("memory", 20, instance="b")], True),
    ])  # fmt: skip
    assert values(merged) == {"waiting": -4, "memory{instance=a}": 10, "memory{instance=b}": 20}


def test_a_dead_process_keeps_its_counters_and_loses_its_gauges() -> None:
    merged = merge([([counter("done", 3), gauge("memory", 10), histogram("took", 1, 1)], False)])
    assert values(merged) == {"done_total": 3, "took_bucket{le=1.0}": 1, "took_bucket{le=+Inf}": 1, "took_count": 1,
                              "took_sum": 10}  # fmt: skip
    assert [(family.name, family.kind, family.help) for family in merged] == [
        ("done", "counter", "help"),
        ("memory", "gauge", "help"),
        ("took", "histogram", "help"),
    ]


def test_metrics_of_different_kinds_are_not_added() -> None:
    assert values(merge([([gauge("x", 1)], True), ([counter("x", 5)], True)])) == {"x": 1}


def test_the_order_of_labels_does_not_matter() -> None:
    first = Family("x", "counter", "", [Sample("x_total", {"a": "1", "b": "2"}, 1)])
    second = Family("x", "counter", "", [Sample("x_total", {"b": "2", "a": "1"}, 1)])
    assert values(merge([([first], True), ([second], True)])) == {"x_total{a=1,b=2}": 2}


def test_the_buckets_of_a_histogram_rise_within_each_set_of_labels() -> None:
    merged = merge([
        ([histogram("took", 1, 1, model="b"), histogram("took", *range(12), model="a")], True),
        ([histogram("took", 1, 2, 3, model="b")], True),
    ])  # fmt: skip
    samples = merged[0].samples
    groups = [sample.labels["model"] for sample in samples]
    assert groups == sorted(groups)
    bounds = [sample.labels.get("le", "none") for sample in samples if sample.labels["model"] == "b"]
    assert bounds == ["1.0", "2.0", "+Inf", "none", "none"]


_labels = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xyz"))


@st.composite
def _family(draw: st.DrawFn) -> Family:
    name = draw(st.sampled_from("mn"))
    sample = st.builds(Sample, st.sampled_from([f"{name}_total", f"{name}_sum"]), _labels, st.integers(0, 1000))
    kind = draw(st.sampled_from(["counter", "gauge", "histogram"]))
    return Family(name, kind, "", draw(st.lists(sample, max_size=4)))


_families = st.lists(_family(), max_size=3)


@settings(max_examples=40)
@given(st.lists(st.tuples(_families, st.booleans()), max_size=4), _families)
def test_merging_never_loses_a_count_and_gives_the_same_in_steps(
    sources: list[tuple[list[Family], bool]], more: list[Family]
) -> None:
    before = values([family for family in merge(sources) if family.kind != "gauge"])
    at_once = merge([*sources, (more, False)])
    assert all(values(at_once)[series] >= value for series, value in before.items())
    in_steps = merge([(merge(sources), True), (more, False)])
    assert values(in_steps) == values(at_once)
