"""JSON lines on standard output, one event each: time, level, stage, event, and `task_id` where one is concerned."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor


def _serialize(event: dict[str, Any], **_: object) -> bytes:
    return orjson.dumps(event, default=str)


def _of(instance: str) -> Processor:
    """Say the stage in every line; a processor, because threads do not inherit what is bound by `contextvars`."""

    def add_stage(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("stage", instance)
        return event

    return add_stage


def _in_order(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Time, level, stage and event first, so that people can read the lines too."""
    first = {name: event.pop(name) for name in ("time", "level", "stage", "event") if name in event}
    return {**first, **event}


def set_up(instance: str, level: str) -> None:
    """Log as this instance from now on; libraries that use `logging` come out as the same lines from WARNING up."""
    structlog.configure(
        processors=[
            _of(instance),
            structlog.processors.TimeStamper(fmt="iso", key="time"),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(serializer=_serialize),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.upper()),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


class _Forward(logging.Handler):
    """Says what a library logged, by logger and level; without its arguments, which may hold anything."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("library_warning", library=record.name, message=str(record.msg))
