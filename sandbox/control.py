"""The control interface of the sandbox: JSON over HTTP on its own port.

    POST   /tasks?ids=     queue tasks: {"count": N, "text": "template {n}", "model", "type", "distinct": true}, or
                           {"tasks": [{...tasks.NewTask...}]}, or {"raw": [any JSON elements for the pending page]};
                           returns {"count", "first", "last", "ids"}, without "ids" for `?ids=false`
    GET    /tasks/ID       one task with its PATCHes
    POST   /requeue        {"ids": [...]}: set these tasks to pending again
    GET    /record         every id with its PATCHes; `?offset=&limit=`
    GET    /results        {id: vector or error}: the results accepted last; needs the setting `keep_results`
    GET    /summary        counters, by service; cheap
    GET    /charges        `?service=openai|ollama`: [{time, received_at, inputs, tokens}], one for each charged
                           request; `&keys=true` adds the `vectors.text_key` of each input
    GET    /settings       and PUT: {"api": {...}, "oauth2": {...}, "openai": {...}, "ollama": {...}} (see settings.py)
    POST   /faults         add a fault (see faults.py), returns {"number": N}
    GET    /faults         all faults, each with how often it `matched` and `applied`
    DELETE /faults/N       remove one; DELETE /faults removes all
    POST   /release        {"service"?}: send held responses
    POST   /down           {"service"}: refuse connections, reset the open ones; POST /up: listen on the same port again
    POST   /revoke         revoke all access tokens
    POST   /reset          return to the initial state; requests under way are cancelled
    GET    /clock          {"time": Unix seconds, "monotonic": seconds}

A request that is not valid is answered with 400 and {"error": reason}.
"""

import itertools
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sandbox.faults import FaultSpec
from sandbox.http import Request, Response, json_response
from sandbox.settings import ServiceSettings, updated
from sandbox.stand_in import Reply, StandIn
from sandbox.tasks import NewTask, RecordedPatch, StandInTask
from sandbox.world import World


class UnknownError(Exception):
    """The route, task or fault does not exist."""


class NewTasks(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /tasks`."""

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


class Control(StandIn[ServiceSettings]):
    """Serves the routes listed above."""

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
        """Call the handler of the route."""
        try:
            handler, argument = self._route(request)
            value = handler(request, argument)
        except (msgspec.MsgspecError, ValueError) as error:
            return json_response(400, {"error": str(error)})
        except UnknownError as error:
            return json_response(404, {"error": str(error)})
        return _awaited_json(value) if isinstance(value, Awaitable) else json_response(200, value)

    def _route(self, request: Request) -> tuple[Handler, str]:
        for method, pattern, handler in self._routes:
            found = pattern.fullmatch(request.path)
            if found is not None and method.encode() == request.method:
                return handler, "".join(group or "" for group in found.groups())
        raise UnknownError(f"no such route: {request.method.decode()} {request.path}")

    # Tasks.

    def _add_tasks(self, request: Request, _: str) -> dict[str, Any]:
        new, store = msgspec.json.decode(request.body, type=NewTasks), self._world.api.tasks
        ids = [store.add(task) for task in new.tasks]
        ids += [store.add_raw(bytes(element)) for element in new.raw]
        template = new.text if "{n}" in new.text or not new.distinct else new.text + " {n}"
        for _number in range(new.count):
            text = template.replace("{n}", str(store.next_text_number())) if new.distinct else template
            ids.append(store.add(NewTask(text=text, model=new.model, type=new.type)))
        response = {"count": len(ids), "first": ids[0] if ids else None, "last": ids[-1] if ids else None}
        return response if request.query.get("ids") == "false" else {**response, "ids": ids}

    def _get_task(self, _request: Request, task_id: str) -> dict[str, Any]:
        task = self._world.api.tasks.get(task_id)
        if task is None:
            raise UnknownError(f"no such task: {task_id}")
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
            raise ValueError(f"{name!r} does not charge; services that do: {', '.join(providers)}")
        return providers[name].log(with_keys=request.query.get("keys") == "true")

    # Settings and faults.

    def _get_settings(self, _request: Request, _: str) -> dict[str, Any]:
        return {name: service.settings for name, service in self._world.services.items()}

    def _put_settings(self, request: Request, _: str) -> dict[str, Any]:
        changes = msgspec.json.decode(request.body, type=dict[str, dict[str, Any]])
        # All changes or none: `updated` raises before anything is changed.
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
        removed = self._world.clear_faults(int(number) if number else None)
        if number and not removed:
            raise UnknownError(f"no such fault: {number}")
        return {"removed": removed}

    def _release(self, request: Request, _: str) -> dict[str, int]:
        name = msgspec.json.decode(request.body or b"{}", type=_ServiceName).service
        services = list(self._world.services.values()) if name is None else [self._service(name)]
        count = sum(service.held for service in services)
        for service in services:
            service.release()
        return {"released": count}

    # Ports, tokens, reset.

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

    def _service(self, name: str | None) -> StandIn[Any]:
        service = self._world.services.get(name or "")
        if service is None:
            raise ValueError(f"no such service: {name!r}; the services are {', '.join(self._world.services)}")
        return service


async def _awaited_json(value: Awaitable[Any]) -> Response:
    """The response of an asynchronous handler."""
    try:
        return json_response(200, await value)
    except (msgspec.MsgspecError, ValueError) as error:
        return json_response(400, {"error": str(error)})


def _described(task_id: str, task: StandInTask | None, patches: list[RecordedPatch]) -> dict[str, Any]:
    """A task with its PATCHes; the state is None if the id does not exist."""
    return {"id": task_id, "state": None if task is None else task.state, "patches": patches}
