"""`python -m stages dead-letters`: look at the results that the API refused for good, send them again or drop them.

While the publisher runs, it alone writes: what a person decided is a message to it, and this waits until it is done.
When it does not run, this takes the lock of its store and does it itself; the fetcher hears of it from the publisher.
The letters are read beside the publisher, which neither of them notices. No task text is kept with a result.
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
PATIENCE = 10.0
"""Seconds in which a running publisher has done what it was told, unless something is wrong with it."""
CHUNK = 1000
"""Ids in one message."""
SIZE_OF_A_COMPONENT = 4


def add_to(commands: Any) -> None:
    """Add the command and its own to the parser of `python -m stages`."""
    parser = commands.add_parser(
        "dead-letters", help="list, show, replay or drop results that the API refused for good"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, words in (("list", "one line for each"), ("show", "all that is known of one")):
        verbs.add_parser(verb, help=words).add_argument("--json", action="store_true", help="as JSON")
    verbs.choices["show"].add_argument("ids", metavar="ID", nargs=1)
    for verb, words in (
        ("replay", "send them to the API again, byte for byte"),
        ("drop", "forget the results; tasks that are pending still are processed anew"),
    ):
        verbs.add_parser(verb, help=words).add_argument("ids", metavar="ID", nargs="+", help="ids, or: all")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Do the command; the exit status is 1 if it could not be done, with the reason on standard error."""
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
            decide(settings, chosen, options.verb)
        _print(f"{_counted(len(chosen))} {'will be sent again' if options.verb == 'replay' else 'dropped'}")
        return 0
    except Error as error:
        sys.stderr.write(f"{error}\n")
        return 1


def letters(state_dir: Path) -> Letters:
    """Read all dead letters, the oldest first."""
    found = store.read_only(state_dir, PUBLISHER, "dead", decode_letter)
    return dict(sorted(found.items(), key=lambda item: item[1].at))


def decide(settings: Settings, chosen: Letters, verb: str) -> None:
    """Replay or drop the letters; raise `Error` if that cannot be done."""
    if not store.is_running(settings.state_dir, PUBLISHER):
        try:
            _do(settings.state_dir, chosen, verb)
            return
        except Fatal:
            if not store.is_running(settings.state_dir, PUBLISHER):
                raise  # else the publisher was started in this moment
    _tell(settings, chosen, verb)


def _do(state_dir: Path, chosen: Letters, verb: str) -> None:
    outbox = Outbox(state_dir)
    with closing(outbox.store):
        for task_id in chosen:
            action = ReplayDeadLetter(task_id) if verb == "replay" else DropDeadLetter(task_id)
            outbox.writes[type(action)](action)
        outbox.store.commit()


def _tell(settings: Settings, chosen: Letters, verb: str) -> None:
    """Send it to the publisher, and wait until none of the letters is as it was."""
    ids = list(chosen)
    deadline = time.monotonic() + PATIENCE
    with closing(Sockets(Wiring(settings.sockets_dir, OPERATOR))) as sockets:
        for start in range(0, len(ids), CHUNK):
            sockets.send(PUBLISHER, DeadLetters(**{verb: ids[start : start + CHUNK]}))
        while any(_same(chosen, now, task_id) for now in [letters(settings.state_dir)] for task_id in ids):
            if time.monotonic() > deadline:
                raise Error(
                    f"the publisher has not done it within {PATIENCE:g} s; its log says why, or RUNTIME_DIR "
                    f"({settings.sockets_dir}) is not the one that it was started with"
                )
            sockets.flush()
            time.sleep(0.05)


def _same(before: Letters, now: Letters, task_id: str) -> bool:
    """A letter that was replayed and refused again is another one: it has a later time."""
    return task_id in now and now[task_id].at == before[task_id].at


def _choose(found: Letters, ids: Iterable[str]) -> Letters:
    if list(ids) == ["all"]:
        return found
    missing = [task_id for task_id in ids if task_id not in found]
    if missing:
        raise Error(
            f"no dead letter of the task {', '.join(missing)}; nothing was done (`dead-letters list` shows all)"
        )
    return {task_id: found[task_id] for task_id in ids}


# ---- in words ----


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _counted(number: int) -> str:
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
        facts["vector_length"] = len(result.vector) // SIZE_OF_A_COMPONENT
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
    return "\n".join([*(lines if found else []), _counted(len(found))])


def _description(chosen: Letters) -> str:
    lines = []
    for task_id, letter in chosen.items():
        for name, value in _facts(task_id, letter).items():
            shown = f"{value['code']}: {value['message']}" if isinstance(value, dict) else value
            lines.append(f"{name.replace('_', ' '):<15} {shown}")
    return "\n".join(lines)
