"""The NestJS application: a queue of AI tasks behind a bearer token.

Shapes, statuses and oddities are those of NestJS 12 on express, and of the reference API: bodies over 100 KiB are
refused before the token is looked at, idle connections are closed after 5 s, a task may be patched again and again.
"""

import re
import time
import zlib
from typing import Any, ClassVar

import msgspec
import numpy as np

from sandbox.http import Answer, Request, json_answer
from sandbox.service import Service
from sandbox.settings import ApiSettings
from sandbox.tasks import Patch, TaskStore
from sandbox.tokens import TokenStore

_PREFIX = b"/api/ai-tasks/"
_ID = re.compile(rb"[0-9a-f]{24}", re.IGNORECASE)
_SUCCESS = b'{"state":"succeeded","result":['
_NOT_IN_NUMBERS = (b'"', b"[", b"{", b"l", b"t")  # strings, arrays, objects, null, true and false


class _Body(msgspec.Struct):
    state: str
    result: msgspec.Raw = msgspec.Raw()


class _Failure(msgspec.Struct):
    code: str
    message: str


class _Failed(msgspec.Struct):
    error: _Failure


class BadBodyError(ValueError):
    """The PATCH's body is not what the API takes."""


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_failed = msgspec.json.Decoder(_Failed).decode


def _refusal(status: int, message: str, error: str | None = None) -> Answer:
    return json_answer(status, {"statusCode": status, "message": message, **({"error": error} if error else {})})


class Api(Service[ApiSettings]):
    """`GET /api/ai-tasks/pending`, `GET /api/ai-tasks`, `PATCH /api/ai-tasks/:id`."""

    name: ClassVar[str] = "api"

    def __init__(self, tokens: TokenStore) -> None:
        super().__init__(ApiSettings())
        self._tokens = tokens
        self.tasks = TaskStore()
        self._gets = 0
        self._patches = 0

    def handle(self, request: Request) -> Answer:
        """Route."""
        if request.method == b"PATCH" and request.url.startswith(_PREFIX):
            return self._patch(request)
        limit = self.settings.body_limit
        if limit and len(request.body) > limit:
            return _refusal(413, "request entity too large")
        path = request.path
        if request.method != b"GET" or path not in {"/api/ai-tasks", "/api/ai-tasks/pending"}:
            return _refusal(404, f"Cannot {request.method.decode()} {path}", "Not Found")
        if not self._tokens.admits(request.headers.get(b"authorization")):
            return _refusal(401, "Unauthorized")
        return self._get(path, request.query)

    def refuse(self, request: Request, status: int) -> None:
        """Record a PATCH that a fault kept from the API."""
        if request.method == b"PATCH" and request.url.startswith(_PREFIX):
            self._patches += 1
            self._note(request, status)

    def counters(self) -> dict[str, Any]:
        """Tasks by state, and what became of the PATCHes."""
        tasks = self.tasks
        return {
            "tasks": tasks.counts,
            "gets": self._gets,
            "patches": self._patches,
            "accepted": tasks.accepted,
            "accepted_twice": tasks.accepted_twice,
            "digests_differ": tasks.digests_differ,
        }

    def reset(self) -> None:
        """Also without tasks and records."""
        super().reset()
        self.tasks = TaskStore()
        self._gets = self._patches = 0

    def _get(self, path: str, query: dict[str, str]) -> Answer:
        self._gets += 1
        asked = query.get("limit")
        if asked is not None and not asked.isdecimal():
            return _refusal(400, "Validation failed (numeric string is expected)", "Bad Request")
        settings = self.settings
        limit = int(asked) if asked is not None and settings.honour_limit else None
        if settings.page_cap:
            limit = settings.page_cap if limit is None else min(limit, settings.page_cap)
        if path == "/api/ai-tasks":
            return Answer(200, self.tasks.in_state(query.get("state", "pending"), limit))
        return Answer(200, self.tasks.page(limit, settings.order))

    def _patch(self, request: Request) -> Answer:
        self._patches += 1
        raw_id, body, settings = request.url[len(_PREFIX) :], request.body, self.settings
        if settings.body_limit and len(body) > settings.body_limit:
            return self._refused(request, _refusal(413, "request entity too large"))
        if not self._tokens.admits(request.headers.get(b"authorization")):
            return self._refused(request, _refusal(401, "Unauthorized"))
        task_id = raw_id.decode("latin-1")
        task = self.tasks.get(task_id)
        if task is None and _ID.fullmatch(raw_id) is None:
            return self._refused(request, _refusal(400, "Validation failed (ObjectId is expected)", "Bad Request"))
        try:
            patch = self._read(request, body, task.task_type if task else "")
        except (msgspec.MsgspecError, BadBodyError) as error:
            return self._refused(request, _refusal(400, str(error), "Bad Request"))
        if task is None:
            return self._refused(request, _refusal(404, "AI task not found", "Not Found"))
        self.tasks.accept(task_id, task, patch)
        short = f'{{"_id":"{task_id}","type":"{task.task_type}","state":"{patch.state}","__v":0}}'
        return Answer(200, short.encode())

    def _read(self, request: Request, body: bytes, task_type: str) -> Patch:
        """The PATCH in the body, as accepted; raises when it is none."""
        status = 200 if request.answers_as is None else request.answers_as
        patch = Patch(time.time(), True, status, digest=zlib.crc32(body))
        settings = self.settings
        if not settings.check_bodies and not settings.keep_results and body.startswith(_SUCCESS):
            patch.state, patch.length = "succeeded", _commas(body)  # one more comma before the result
            return patch
        decoded = _decode_body(body)
        result = bytes(decoded.result)
        patch.state = decoded.state
        if patch.state == "succeeded":
            if task_type == "text_embedding":
                _require_numbers(result)
                patch.length = _commas(result) + 1
        elif patch.state == "failed":
            patch.error_code = _decode_failed(result).error.code
        elif patch.state != "in_progress":
            raise BadBodyError("state must be one of the following values: in_progress, succeeded, failed")
        if settings.keep_results and result:
            patch.result = msgspec.Raw(result)
        return patch

    def _refused(self, request: Request, answer: Answer) -> Answer:
        self._note(request, answer.status if request.answers_as is None else request.answers_as)
        return answer

    def _note(self, request: Request, status: int) -> None:
        task_id = request.url[len(_PREFIX) :].decode("latin-1")
        self.tasks.note(task_id, Patch(time.time(), False, status, digest=zlib.crc32(request.body)))


def _require_numbers(result: bytes) -> None:
    """Raise unless the JSON is a non-empty array of numbers."""
    odd = not result.startswith(b"[") or result == b"[]" or any(result.find(mark, 1) > 0 for mark in _NOT_IN_NUMBERS)
    if odd:
        raise BadBodyError("result must be a non-empty array of numbers")


def _commas(text: bytes) -> int:
    """How many there are; by numpy, since for 19 kB bytes.count takes 6.5 µs and it 2.5."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(",")))
