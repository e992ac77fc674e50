from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.exposed import exposed
from tests.deploy.promql import metrics, selectors
from tests.deploy.tools import ROOT, promtool

FILE = ROOT / "deploy/grafana/dashboards/ai-task-processor.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_every_metric_on_the_dashboard_is_exposed(expression: str) -> None:
    assert metrics(expression)
    assert metrics(expression) <= exposed()


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_every_expression_selects_the_chosen_jobs_and_pipelines(expression: str) -> None:
    for selector in selectors(expression).values():
        assert 'job=~"$job", instance=~"$pipeline"' in selector


def test_every_metric_of_the_provider_and_of_the_build_has_a_panel() -> None:
    shown = set().union(*(metrics(expression) for expression in expressions()))
    assert {"provider_requests_total", "provider_tokens_used_total", "build_info"} <= shown


def test_a_panel_shows_how_often_each_task_is_read_from_the_api() -> None:
    both = {"ai_tasks_listed_total", "ai_tasks_leased_total"}
    assert any(metrics(expression) == both and " / " in expression for expression in expressions())


def test_the_variables_of_the_dashboard_are_the_jobs_and_their_pipelines() -> None:
    queries = {variable["name"]: variable["query"] for variable in DASHBOARD["templating"]["list"]}
    assert queries == {
        "job": 'label_values(process_up{job=~"ai-task-processor.*"}, job)',
        "pipeline": 'label_values(process_up{job=~"$job"}, instance)',
    }


def test_prometheus_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"expression_{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_every_panel_uses_the_provisioned_datasource() -> None:
    provisioned = (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
    used = {
        source["datasource"]["uid"]
        for panel in DASHBOARD["panels"]
        if panel["type"] != "row"
        for source in (panel, *panel["targets"])
    }
    assert len(used) == 1
    assert f"uid: {used.pop()}\n" in provisioned


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
