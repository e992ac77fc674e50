"""Logs on standard output, one line for each event: time, level, stage, event, and `task_id` where a task is concerned.

On a terminal a line is for people: structlog's console form, in local time. Elsewhere it is a JSON object, in UTC.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter
from structlog.typing import EventDict, Processor

from common.process import log_lines

LEADING_FIELDS = ("time", "level", "stage", "event")
"""Every line begins with these, in this order."""
_RESET, _BRIGHT, _DIM, _CYAN, _MAGENTA = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[35m"


def set_up(instance: str, level: str) -> Any:
    """Log as this instance from now on. What libraries log with `logging` becomes such lines too, from WARNING up.

    Returns the logger.
    """
    for_people = sys.stdout.isatty()
    structlog.configure(
        processors=[
            _stage_adder(instance),
            structlog.processors.TimeStamper("%H:%M:%S" if for_people else "iso", utc=not for_people, key="time"),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _leading_fields_first,
            _line_renderer(for_people=for_people, with_rest=level.upper() == "DEBUG"),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.upper()),
        logger_factory=(
            structlog.WriteLoggerFactory(sys.stdout) if for_people else structlog.BytesLoggerFactory(sys.stdout.buffer)
        ),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)
    return structlog.get_logger()


def _stage_adder(instance: str) -> Processor:
    """Add the stage to every line. This is a processor because threads do not inherit structlog's `contextvars`."""

    def add_stage(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("stage", instance)
        return event

    return add_stage


def _leading_fields_first(_logger: object, _method: str, event: EventDict) -> EventDict:
    first = {name: event.pop(name) for name in LEADING_FIELDS if name in event}
    return {**first, **event}


def _line_renderer(*, for_people: bool, with_rest: bool) -> Callable[[Any, str, EventDict], str | bytes]:
    """Render an event as one line of bounded length, or as several lines if the rest of its lists is wanted."""
    console = _console_renderer()

    def render(logger: Any, method: str, event: EventDict) -> str | bytes:
        parts = log_lines.bounded(dict(event), LEADING_FIELDS, with_rest=with_rest)
        if for_people:
            return "\n".join(console(logger, method, part) for part in parts)
        return b"\n".join(map(log_lines.serialize, parts))

    return render


def _console_renderer() -> ConsoleRenderer:
    def plain(style: str, width: int = 0) -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(None, style, _RESET, _printable, width)

    levels = ConsoleRenderer.get_default_level_styles(colors=True)
    columns = [
        Column("time", plain(_DIM)),
        Column("level", LogLevelColumnFormatter(levels, _RESET)),
        Column("stage", plain(_CYAN, width=len("token_broker"))),
        Column("event", plain(_BRIGHT, width=24)),
        Column("", KeyValueColumnFormatter(_CYAN, _MAGENTA, _RESET, _printable)),  # all other fields
    ]
    return ConsoleRenderer(columns=columns, sort_keys=False)


def _printable(value: object) -> str:
    """Show a value so that it stays on its line and cannot control the terminal: it may come from outside."""
    text = value if isinstance(value, str) else repr(value)
    return text if text.isprintable() and text else repr(text)


class _LibraryHandler(logging.Handler):
    """Logs what a library logged: its logger and its message, without the arguments, which may hold secrets."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("library_warning", library=record.name, message=str(record.msg))
