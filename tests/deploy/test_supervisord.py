"""The real supervisord.conf, as supervisord parses it and the plug-in completes it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from supervisor.options import ServerOptions

from stages import supervisord_plugin
from tests.deploy.tools import ROOT
from tests.samples import ENVIRONMENT

STAGES = {"monitor", "token_broker", "publisher", "embedder", "rate_limiter", "fetcher"}


def parsed() -> ServerOptions:
    options = ServerOptions()
    options.realize(["-c", str(ROOT / "supervisord.conf")])
    return options


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The programs that supervisord starts with EMBEDDER_PROCESSES=3, in the order of starting."""
    for name, value in {**ENVIRONMENT, "EMBEDDER_PROCESSES": "3"}.items():
        monkeypatch.setenv(name, value)
    options = parsed()
    supervisord_plugin.load(SimpleNamespace(options=options, process_groups={}))
    groups = sorted(options.process_group_configs)
    return [program for group in groups for program in group.process_configs]


def test_every_stage_is_a_program_that_runs_its_own_module(programs: list[Any]) -> None:
    modules = set()
    for program in programs:
        match = re.fullmatch(r"python -m (stages\.(\w+))( \w+)?", program.command)
        assert match, program.command
        assert (ROOT / "stages" / match[2] / "__main__.py").is_file()
        modules.add(match[2])
    assert modules == STAGES


def test_there_are_as_many_embedders_as_the_setting_says(programs: list[Any]) -> None:
    embedders = {program.name: program.command for program in programs if program.name.startswith("embedder")}
    assert embedders == {f"embedder_0{number}": f"python -m stages.embedder embedder_0{number}" for number in range(3)}


def test_the_fetcher_stops_first_and_the_monitor_last(programs: list[Any]) -> None:
    stopped = [re.sub(r"_\d+$", "", program.name) for program in reversed(programs)]
    assert list(dict.fromkeys(stopped)) == [
        "fetcher", "rate_limiter", "embedder", "publisher", "token_broker", "monitor",
    ]  # fmt: skip


def test_every_program_restarts_without_limit_and_logs_to_standard_output(programs: list[Any]) -> None:
    for program in programs:
        assert program.autorestart
        assert program.startretries >= 1_000_000
        assert program.stdout_logfile is None
        assert isinstance(program.make_process(), supervisord_plugin.InheritingProcess)
        assert program.redirect_stderr


def stopped_within(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, int]:
    """Program → how many seconds it may take to stop."""
    for name, value in {**ENVIRONMENT, **variables}.items():
        monkeypatch.setenv(name, value)
    options = parsed()
    supervisord_plugin.load(SimpleNamespace(options=options, process_groups={}))
    return {group.name: group.process_configs[0].stopwaitsecs for group in options.process_group_configs}


def test_a_stop_waits_for_provider_requests_however_long_they_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = stopped_within(monkeypatch)
    assert (usual["embedder"], usual["publisher"]) == (140, 150)
    long = stopped_within(monkeypatch, OLLAMA_TIMEOUT="600.5")
    assert (long["embedder"], long["publisher"]) == (621, 631)
    assert {**long, "embedder": 140, "publisher": 150} == usual


def test_socket_and_pid_file_are_in_the_writable_folder_of_the_image() -> None:
    options = parsed()
    assert options.pidfile == str(ROOT / "data/supervisord.pid")
    assert [config["file"] for config in options.server_configs] == [str(ROOT / "data/supervisord.sock")]
    assert options.nodaemon
