from __future__ import annotations

import re

import pytest

from tests.deploy.exposed import exposed
from tests.deploy.promql import metrics, selectors
from tests.deploy.tools import ROOT, promtool

FOLDER = ROOT / "deploy/prometheus"
ALERTS = (FOLDER / "alerts.yml").read_text()
EXPRESSIONS = re.findall(r"^ +expr: (.+)$", ALERTS, re.MULTILINE)


def test_prometheus_accepts_the_configuration_and_its_alerts() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", ROOT / "tests/deploy/alerts_test.yml")


def test_every_alert_has_its_expression_on_one_line() -> None:
    assert len(EXPRESSIONS) == ALERTS.count("- alert: ") > 5


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_of_an_alert_is_exposed(expression: str) -> None:
    assert metrics(expression)
    assert metrics(expression) <= exposed()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_selector_of_an_alert_names_the_job(expression: str) -> None:
    for selector in selectors(expression).values():
        assert 'job=~"ai-task-processor.*"' in selector


def test_every_alert_is_tried_in_both_directions() -> None:
    tried = re.split(r"(?=- alertname: )", (ROOT / "tests/deploy/alerts_test.yml").read_text())[1:]
    outcomes = {(part.split("\n", 1)[0].removeprefix("- alertname: "), "exp_alerts" in part) for part in tried}
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert outcomes == {(alert, fires) for alert in alerts for fires in (True, False)}


def test_the_operations_page_says_what_to_do_about_each_alert() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    for alert in re.findall(r"- alert: (\w+)", ALERTS):
        assert f"| `{alert}` |" in page


def test_the_metrics_of_an_expression_are_found() -> None:
    expression = (
        'sum by (a) (rate(b_total{c=~"d|e"}[5m])) / on (f) max(g{i="j k"}) unless h offset 5m > bool 2 or vector(1)'
    )
    assert metrics(expression) == {"b_total", "g", "h"}
