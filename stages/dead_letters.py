"""`python -m stages dead-letters`: list, show, replay or drop the results that the API refused for good.

While the publisher runs, only the publisher writes to its store: this command sends it a message and waits until the
change is visible. While the publisher is stopped, this command takes the lock of the store and writes the change; the
publisher tells the fetcher about it after its next start. Reading needs no lock: LMDB allows readers beside the writer.
A dead letter has no task text.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.failures.errors import Error, Fatal
from common.process import store
from common.settings.settings import Settings
from common.wire.messages import DeadLetters
from common.wire.sockets import Sockets
from common.wire.wiring import OPERATOR, Wiring
from stages.publisher.actions import DeadLetter, DropDeadLetter, ReplayDeadLetter
from stages.publisher.body import state_of
from stages.publisher.outbox import Outbox, decode_letter

Letters = Mapping[str, DeadLetter]

PUBLISHER = "publisher"
PUBLISHER_TIMEOUT_S = 10.0
"""How long this command waits for a running publisher. A healthy one needs well under a second."""
POLL_INTERVAL_S = 0.05
"""How often the store is read while waiting for the publisher."""
IDS_PER_MESSAGE = 1000
BYTES_PER_FLOAT = 4
"""Vectors are stored as float32."""


def add_to(commands: Any) -> None:
    """Add `dead-letters` and its subcommands to the parser of `python -m stages`."""
    parser = commands.add_parser(
        "dead-letters", help="list, show, replay or drop the results that the API refused for good"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (("list", "show one line for each dead letter"), ("show", "show all details of one dead letter")):
        verbs.add_parser(verb, help=text).add_argument("--json", action="store_true", help="print JSON")
    verbs.choices["show"].add_argument("ids", metavar="ID", nargs=1)
    for verb, text in (
        ("replay", "send the results to the API again, byte for byte"),
        ("drop", "delete the results; a task that is still pending in the API is processed again"),
    ):
        verbs.add_parser(verb, help=text).add_argument("ids", metavar="ID", nargs="+", help='task ids, or "all"')


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Run the command; returns the exit status: 0, or 1 with the reason on standard error."""
    try:
        found = letters(settings.state_dir)
        if options.verb == "list":
            _print(_as_json(found) if options.json else _table(found))
            return 0
        chosen = _choose(found, options.ids)
        if options.verb == "show":
            _print(_as_json(chosen) if options.json else _description(chosen))
            return 0
        if chosen:
            change(settings, chosen, options.verb)
        _print(f"{_count(len(chosen))} {'will be sent again' if options.verb == 'replay' else 'dropped'}")
        return 0
    except Error as error:
        sys.stderr.write(f"{error}\n")
        return 1


def letters(state_dir: Path) -> Letters:
    """Read all dead letters, the oldest first."""
    found = store.read_only(state_dir, PUBLISHER, "dead", decode_letter)
    return dict(sorted(found.items(), key=lambda item: item[1].at))


def change(settings: Settings, chosen: Letters, verb: str) -> None:
    """Replay or drop these dead letters; raises `Error` if that cannot be done."""
    if not store.is_running(settings.state_dir, PUBLISHER):
        try:
            _write(settings.state_dir, chosen, verb)
            return
        except Fatal:
            if not store.is_running(settings.state_dir, PUBLISHER):
                raise  # otherwise the publisher has just been started, and has the lock
    _send(settings, chosen, verb)


def _write(state_dir: Path, chosen: Letters, verb: str) -> None:
    """Change the store of a publisher that is stopped; raises `Fatal` if a publisher has its lock."""
    outbox = Outbox(state_dir)
    with closing(outbox.store):
        for task_id in chosen:
            action = ReplayDeadLetter(task_id) if verb == "replay" else DropDeadLetter(task_id)
            outbox.writes[type(action)](action)
        outbox.store.commit()


def _send(settings: Settings, chosen: Letters, verb: str) -> None:
    """Tell a running publisher, and wait until it has changed each of these dead letters."""
    ids = list(chosen)
    deadline = time.monotonic() + PUBLISHER_TIMEOUT_S
    with closing(Sockets(Wiring(settings.sockets_dir, OPERATOR))) as sockets:
        for start in range(0, len(ids), IDS_PER_MESSAGE):
            sockets.send(PUBLISHER, DeadLetters(**{verb: ids[start : start + IDS_PER_MESSAGE]}))
        while _unchanged(chosen, letters(settings.state_dir)):
            if time.monotonic() > deadline:
                raise Error(
                    f"the publisher did not {verb} all of them within {PUBLISHER_TIMEOUT_S:g} s: see its log, and "
                    f"check that it was started with the same RUNTIME_DIR ({settings.sockets_dir})"
                )
            sockets.flush()
            time.sleep(POLL_INTERVAL_S)


def _unchanged(before: Letters, now: Letters) -> bool:
    """Whether any dead letter is as it was. One that was replayed and refused again has a later time, so it changed."""
    return any(task_id in now and now[task_id].at == letter.at for task_id, letter in before.items())


def _choose(found: Letters, ids: Iterable[str]) -> Letters:
    if list(ids) == ["all"]:
        return found
    missing = [task_id for task_id in ids if task_id not in found]
    if missing:
        raise Error(
            f"no dead letter for task {', '.join(missing)}; nothing was changed (`dead-letters list` shows all)"
        )
    return {task_id: found[task_id] for task_id in ids}


# ---- output ----


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _count(number: int) -> str:
    return "1 dead letter" if number == 1 else f"{number} dead letters"


def _facts(task_id: str, letter: DeadLetter) -> dict[str, Any]:
    result = letter.result
    facts: dict[str, Any] = {
        "id": task_id,
        "type": result.type,
        "state": state_of(result),
        "status": letter.status,
        "reason": letter.reason,
        "refused_at": _time(letter.at),
        "leased_at": _time(result.leased_at),
    }
    if result.failure is not None:
        facts["failure"] = {"code": result.failure.code, "message": result.failure.message}
    elif result.vector:
        facts["vector_length"] = len(result.vector) // BYTES_PER_FLOAT
    else:
        facts["document_bytes"] = len(result.document)
    return facts


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _as_json(chosen: Letters) -> str:
    return json.dumps([_facts(task_id, letter) for task_id, letter in chosen.items()], indent=1)


def _table(found: Letters) -> str:
    rows = [("TASK", "TYPE", "RESULT", "STATUS", "REFUSED", "REASON")]
    for task_id, letter in found.items():
        status = str(letter.status or "-")
        rows.append((task_id, letter.result.type, state_of(letter.result), status, _time(letter.at), letter.reason))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*(lines if found else []), _count(len(found))])


def _description(chosen: Letters) -> str:
    lines = []
    for task_id, letter in chosen.items():
        for name, value in _facts(task_id, letter).items():
            shown = f"{value['code']}: {value['message']}" if isinstance(value, dict) else value
            lines.append(f"{name.replace('_', ' '):<15} {shown}")
    return "\n".join(lines)
