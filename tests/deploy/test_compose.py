from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tools import ROOT, installed


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The services as Compose reads them, with the example as `.env`."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "docker-compose.yml", folder)
    shutil.copy(ROOT / ".env.example", folder / ".env")
    output = installed("docker-compose", "--file", folder / "docker-compose.yml", "config", "--format", "json")
    services: dict[str, Any] = json.loads(output.replace(str(folder), str(ROOT)))["services"]
    return services


def test_compose_builds_the_service_and_passes_the_settings(services: dict[str, Any]) -> None:
    service = services["ai-task-processor"]
    assert service["build"]["context"] == str(ROOT)
    assert service["environment"]["API_BASE_URL"] == "http://localhost:3000"
    assert service["restart"] == "unless-stopped"


def test_compose_keeps_the_state_on_a_volume_at_the_path_of_the_image(services: dict[str, Any]) -> None:
    service = services["ai-task-processor"]
    assert [(volume["type"], volume["target"]) for volume in service["volumes"]] == [("volume", "/app/data")]
    assert service["environment"]["STATE_DIR"] == "/app/data"
    assert "VOLUME /app/data\n" in (ROOT / "Dockerfile").read_text()


def test_compose_waits_for_the_longest_provider_call_when_stopping(services: dict[str, Any]) -> None:
    stop_waits = [int(found) for found in re.findall(r"stopwaitsecs=(\d+)", (ROOT / "supervisord.conf").read_text())]
    grace = services["ai-task-processor"]["stop_grace_period"]
    assert grace == "2m40s"
    assert max(stop_waits) < 160


def test_compose_publishes_ports_on_the_loopback_address_only(services: dict[str, Any]) -> None:
    published = {
        name: [(port["host_ip"], port["published"], port["target"]) for port in service["ports"]]
        for name, service in services.items()
    }
    assert published == {
        "ai-task-processor": [("127.0.0.1", "8001", 8001)],
        "prometheus": [("127.0.0.1", "9090", 9090)],
        "grafana": [("127.0.0.1", "3001", 3000)],
    }


def test_every_mounted_folder_exists(services: dict[str, Any]) -> None:
    sources = [
        Path(volume["source"])
        for service in services.values()
        for volume in service["volumes"]
        if volume["type"] == "bind"
    ]
    assert len(sources) == 3
    assert all(source.is_dir() for source in sources)


def test_prometheus_scrapes_the_service_and_grafana_queries_prometheus() -> None:
    scraped = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    assert "[ai-task-processor:8001]" in scraped
    datasource = (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()
    assert "url: http://prometheus:9090\n" in datasource


def test_the_compose_file_contains_no_secret() -> None:
    assert not re.search(r"(SECRET|API_KEY)\s*[:=]", (ROOT / "docker-compose.yml").read_text())
