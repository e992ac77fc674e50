"""The switches of the sandbox: JSON over HTTP on a port of its own.

    POST   /tasks?ids=     queue tasks: {"count": N, "text": "template {n}", "model", "type", "distinct": true}, or
                           {"tasks": [{...tasks.NewTask...}]}, or {"raw": [any JSON elements for the pending page]};
                           answers {"count", "first", "last", "ids"}, without "ids" when asked `?ids=false`
    GET    /tasks/ID       one task with its PATCHes
    POST   /requeue        {"ids": [...]} are pending again
    GET    /record         every id with its PATCHes; `?offset=&limit=`
    GET    /results        {id: vector or error}, what was accepted last; needs the setting `keep_results`
    GET    /summary        cheap counters of everything, by service
    GET    /charges        `?service=openai|ollama`: [{time, inputs, tokens}], every request that was charged
    GET    /settings       and PUT: {"api": {...}, "oauth2": {...}, "openai": {...}, "ollama": {...}} (see settings.py)
    POST   /faults         add a fault (see faults.py), answers {"number": N}
    GET    /faults         all in force, each with how often it `matched` and `applied`
    DELETE /faults/N       lift one; DELETE /faults lifts all
    POST   /release        {"service"?}: let held answers go
    POST   /down           {"service"}: refuse connections, reset those there are; POST /up: the same port again
    POST   /revoke         no token is good any more
    POST   /reset          everything as at the start; the requests under way are broken off
    GET    /clock          {"time": Unix seconds, "monotonic": seconds}

What is not understood is a 400 with {"error": in words}.
"""

import itertools
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sandbox.faults import FaultSpec
from sandbox.http import Answer, Request, json_answer
from sandbox.service import Reply, Service
from sandbox.settings import ServiceSettings, updated
from sandbox.tasks import NewTask, Patch, Task
from sandbox.world import World


class UnknownError(Exception):
    """There is nothing of that name."""


class NewTasks(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /tasks` takes."""

    count: int = 0
    text: str = "text {n}"
    model: str = "text-embedding-3-small"
    type: str = "text_embedding"
    distinct: bool = True
    tasks: list[NewTask] = []
    raw: list[msgspec.Raw] = []


class _Ids(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[str]


class _ServiceName(msgspec.Struct, forbid_unknown_fields=True):
    service: str | None = None


Handler = Callable[[Request, str], Any]


class Control(Service[ServiceSettings]):
    """Routes as listed above."""

    name = "control"

    def __init__(self, world: World) -> None:
        super().__init__(ServiceSettings(keep_alive_seconds=0))
        self._world = world
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(path), handler)
            for method, path, handler in (
                ("POST", "/tasks", self._add_tasks),
                ("GET", "/tasks/(.+)", self._get_task),
                ("POST", "/requeue", self._requeue),
                ("GET", "/record", self._record),
                ("GET", "/results", self._results),
                ("GET", "/summary", self._summary),
                ("GET", "/charges", self._charges),
                ("GET", "/settings", self._get_settings),
                ("PUT", "/settings", self._put_settings),
                ("POST", "/faults", self._add_fault),
                ("GET", "/faults", self._get_faults),
                ("DELETE", "/faults(?:/([0-9]+))?", self._delete_faults),
                ("POST", "/release", self._release),
                ("POST", "/down", self._down),
                ("POST", "/up", self._up),
                ("POST", "/revoke", self._revoke),
                ("POST", "/reset", self._reset),
                ("GET", "/clock", self._clock),
            )
        ]

    def handle(self, request: Request) -> Reply:
        """Route; errors in words."""
        try:
            handler, argument = self._route(request)
            value = handler(request, argument)
        except (msgspec.MsgspecError, ValueError) as error:
            return json_answer(400, {"error": str(error)})
        except UnknownError as error:
            return json_answer(404, {"error": str(error)})
        return _later(value) if isinstance(value, Awaitable) else json_answer(200, value)

    def _route(self, request: Request) -> tuple[Handler, str]:
        for method, pattern, handler in self._routes:
            found = pattern.fullmatch(request.path)
            if found is not None and method.encode() == request.method:
                return handler, "".join(group or "" for group in found.groups())
        raise UnknownError(f"there is no {request.method.decode()} {request.path}")

    # Tasks.

    def _add_tasks(self, request: Request, _: str) -> dict[str, Any]:
        new, store = msgspec.json.decode(request.body, type=NewTasks), self._world.api.tasks
        ids = [store.add(task) for task in new.tasks]
        ids += [store.add_raw(bytes(element)) for element in new.raw]
        template = new.text if "{n}" in new.text or not new.distinct else new.text + " {n}"
        for _number in range(new.count):
            text = template.replace("{n}", str(store.next_text_number())) if new.distinct else template
            ids.append(store.add(NewTask(text=text, model=new.model, type=new.type)))
        answer = {"count": len(ids), "first": ids[0] if ids else None, "last": ids[-1] if ids else None}
        return answer if request.query.get("ids") == "false" else {**answer, "ids": ids}

    def _get_task(self, _request: Request, task_id: str) -> dict[str, Any]:
        task = self._world.api.tasks.get(task_id)
        if task is None:
            raise UnknownError(f"there is no task {task_id}")
        return _described(task_id, task, task.patches)

    def _requeue(self, request: Request, _: str) -> dict[str, int]:
        ids = msgspec.json.decode(request.body, type=_Ids).ids
        return {"count": self._world.api.tasks.requeue(ids)}

    def _record(self, request: Request, _: str) -> list[dict[str, Any]]:
        query = request.query
        start = int(query.get("offset", 0))
        stop = start + int(query["limit"]) if "limit" in query else None
        return [_described(*entry) for entry in itertools.islice(self._world.api.tasks.record(), start, stop)]

    def _results(self, _request: Request, _: str) -> dict[str, msgspec.Raw]:
        if not self._world.api.settings.keep_results:
            raise ValueError("results are kept only when the api's setting keep_results is on")
        results = {}
        for task_id, _task, patches in self._world.api.tasks.record():
            for patch in patches:
                if patch.accepted and patch.result is not None:
                    results[task_id] = patch.result
        return results

    def _summary(self, _request: Request, _: str) -> dict[str, Any]:
        return {name: service.summary() for name, service in self._world.services.items()}

    def _charges(self, request: Request, _: str) -> list[dict[str, Any]]:
        providers = {"openai": self._world.openai.meter, "ollama": self._world.ollama.meter}
        name = request.query.get("service", "openai")
        if name not in providers:
            raise ValueError(f"{name!r} charges nothing, only {', '.join(providers)} do")
        return providers[name].log()

    # Settings and faults.

    def _get_settings(self, _request: Request, _: str) -> dict[str, Any]:
        return {name: service.settings for name, service in self._world.services.items()}

    def _put_settings(self, request: Request, _: str) -> dict[str, Any]:
        changes = msgspec.json.decode(request.body, type=dict[str, dict[str, Any]])
        # All or nothing: the first loop raises before the second changes anything.
        new = [(self._service(name), part) for name, part in changes.items()]
        settings = [(service, updated(service.settings, part)) for service, part in new]
        for service, changed in settings:
            service.change(changed)
        return self._get_settings(request, "")

    def _add_fault(self, request: Request, _: str) -> dict[str, int]:
        return {"number": self._world.add_fault(msgspec.json.decode(request.body, type=FaultSpec))}

    def _get_faults(self, _request: Request, _: str) -> list[dict[str, Any]]:
        return [fault.summary() for fault in self._world.faults()]

    def _delete_faults(self, _request: Request, number: str) -> dict[str, int]:
        lifted = self._world.clear_faults(int(number) if number else None)
        if number and not lifted:
            raise UnknownError(f"there is no fault {number}")
        return {"lifted": lifted}

    def _release(self, request: Request, _: str) -> dict[str, int]:
        name = msgspec.json.decode(request.body or b"{}", type=_ServiceName).service
        services = list(self._world.services.values()) if name is None else [self._service(name)]
        count = sum(service.held for service in services)
        for service in services:
            service.release()
        return {"released": count}

    # The whole.

    def _down(self, request: Request, _: str) -> dict[str, str]:
        name = self._named(request)
        self._world.listeners[name].down()
        return {"down": name}

    async def _up(self, request: Request, _: str) -> dict[str, str]:
        name = self._named(request)
        await self._world.listeners[name].up()
        return {"up": name}

    def _revoke(self, _request: Request, _: str) -> dict[str, int]:
        return {"revoked": self._world.tokens.revoke_all()}

    async def _reset(self, _request: Request, _: str) -> dict[str, bool]:
        await self._world.reset()
        return {"reset": True}

    def _clock(self, _request: Request, _: str) -> dict[str, float]:
        return {"time": time.time(), "monotonic": time.monotonic()}

    def _named(self, request: Request) -> str:
        return self._service(msgspec.json.decode(request.body, type=_ServiceName).service).name

    def _service(self, name: str | None) -> Service[Any]:
        service = self._world.services.get(name or "")
        if service is None:
            raise ValueError(f"there is no service {name!r}, only {', '.join(self._world.services)}")
        return service


async def _later(value: Awaitable[Any]) -> Answer:
    """The answer of a handler that takes its time."""
    try:
        return json_answer(200, await value)
    except (msgspec.MsgspecError, ValueError) as error:
        return json_answer(400, {"error": str(error)})


def _described(task_id: str, task: Task | None, patches: list[Patch]) -> dict[str, Any]:
    """A task with its PATCHes; a state of None is an id that no task has."""
    return {"id": task_id, "state": None if task is None else task.state, "patches": patches}
