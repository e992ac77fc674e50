"""Results that the API refuses for good are kept until an operator replays or drops them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from stages.dead_letters import Letters
from stages.dead_letters import letters as read_letters
from tests.faults.ledger import Ledger
from tests.processes import run_module

REFUSED = 422
TEXT = "a text that no command may show"


def command(pipeline: Pipeline, *words: str) -> subprocess.CompletedProcess[str]:
    return run_module("stages", "dead-letters", *words, environment=pipeline.environment)


def listed(pipeline: Pipeline) -> Letters:
    """The dead letters, as the command reads them."""
    return read_letters(Path(pipeline.environment["STATE_DIR"]))


@pytest.fixture
def letters(outside: Sandbox, pipeline: Pipeline) -> Iterator[list[str]]:
    """Three tasks whose results the API refused once, and would accept now."""
    outside.fault("api", method="PATCH", times=3, status=REFUSED)
    ids = outside.queue(3, text=TEXT + " {n}")
    pipeline.wait_until(lambda: set(listed(pipeline)) == set(ids), "three dead letters")
    yield ids
    outside.clear_faults()
    command(pipeline, "drop", "all")
    outside.wait_until(lambda told: told["api"]["tasks"]["pending"] == 0)


def test_list_and_show_print_what_is_known_about_a_dead_letter_but_no_task_text(
    letters: list[str], pipeline: Pipeline
) -> None:
    table, shown = command(pipeline, "list"), command(pipeline, "show", letters[0])
    assert (table.returncode, shown.returncode) == (0, 0)
    assert table.stdout.splitlines()[-1] == "3 dead letters"
    assert f"PATCH answered {REFUSED}" in table.stdout
    assert "vector length   64" in shown.stdout
    as_json = json.loads(command(pipeline, "list", "--json").stdout)
    assert {letter["id"]: letter["status"] for letter in as_json} == dict.fromkeys(letters, REFUSED)
    assert TEXT not in table.stdout + shown.stdout


def test_an_unknown_task_id_is_an_error_and_changes_nothing(letters: list[str], pipeline: Pipeline) -> None:
    for words in (("show", "unknown"), ("drop", letters[0], "unknown")):
        done = command(pipeline, *words)
        assert done.returncode == 1
        assert "no dead letter for task unknown; nothing was changed" in done.stderr
    assert set(listed(pipeline)) == set(letters)


def test_replay_and_drop_work_while_the_publisher_runs(letters: list[str], pipeline: Pipeline, ledger: Ledger) -> None:
    sandbox, paid = pipeline.sandbox, ledger.paid()
    assert command(pipeline, "replay", letters[0]).stdout == "1 dead letter will be sent again\n"
    pipeline.wait_until(lambda: sandbox.task(letters[0])["state"] == "succeeded", "the replayed result")
    first, second = sandbox.task(letters[0])["patches"]
    assert first["digest"] == second["digest"]
    assert ledger.paid() == paid
    assert command(pipeline, "drop", letters[1]).stdout == "1 dead letter dropped\n"
    assert set(listed(pipeline)) == {letters[2]}
    pipeline.wait_until(
        lambda: sandbox.task(letters[1])["state"] == "succeeded", "the dropped task to be processed again"
    )


def test_a_replayed_dead_letter_that_is_refused_again_becomes_a_new_dead_letter(
    letters: list[str], pipeline: Pipeline
) -> None:
    before = listed(pipeline)[letters[0]]
    pipeline.sandbox.fault("api", method="PATCH", times=1, status=413)
    assert command(pipeline, "replay", letters[0]).returncode == 0
    pipeline.wait_until(lambda: listed(pipeline).get(letters[0], before).status == 413, "the new letter")


def test_replay_and_drop_work_while_the_publisher_is_stopped(
    letters: list[str], pipeline: Pipeline, ledger: Ledger
) -> None:
    sandbox, paid = pipeline.sandbox, ledger.paid()
    pipeline.supervisor("stopProcess", "publisher")
    try:
        assert command(pipeline, "replay", letters[0], letters[1]).returncode == 0
        assert command(pipeline, "drop", "all").stdout == "1 dead letter dropped\n"
        assert listed(pipeline) == {}
    finally:
        pipeline.supervisor("startProcess", "publisher")
    sandbox.wait_until(lambda told: told["api"]["tasks"]["pending"] == 0)
    assert [sandbox.task(task_id)["state"] for task_id in letters] == ["succeeded"] * 3
    assert ledger.paid() <= paid + 1
