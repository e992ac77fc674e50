"""What a fault does to one exchange; faults.py has the words for it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sandbox.connection import Connection
from sandbox.faults import Fault, FaultSpec
from sandbox.http import JSON, Answer, Request, chunk, render, render_head

if TYPE_CHECKING:
    from sandbox.service import Reply, Service

_DRIBBLE_TICK = 0.05  # seconds between two pieces; a piece is at least one byte

Effect = Callable[["Service[Any]", Connection, Request, FaultSpec], Awaitable[None]]


async def play(
    service: "Service[Any]",
    connection: Connection,
    request: Request,
    *,
    fault: Fault | None = None,
    delay: float = 0.0,
    reply: "Reply | None" = None,
) -> None:
    """One exchange that cannot be over at once: delayed, streamed, awaited or spoilt."""
    if delay:
        await asyncio.sleep(delay)
        if connection.gone and not service.serves_the_gone:
            service.abandoned += 1
            connection.done(request)
            return
    if fault is not None and fault.effect != "delay":
        await _EFFECTS[fault.effect](service, connection, request, fault.spec)
        return
    answer = await _settled(service.handle(request) if reply is None else reply)
    if answer.stream is None:
        connection.send(request, answer)
    else:
        await _send_stream(service, connection, request, answer)


async def _settled(reply: "Reply") -> Answer:
    return reply if isinstance(reply, Answer) else await reply


async def _whole(reply: "Reply") -> Answer:
    """The answer with its stream, if it has one, gathered into its body."""
    answer = await _settled(reply)
    if answer.stream is not None:
        answer.body = b"".join([piece async for piece in answer.stream])
        answer.stream = None
    return answer


async def _send_stream(service: "Service[Any]", connection: Connection, request: Request, answer: Answer) -> None:
    assert answer.stream is not None
    service.traffic.answered(answer.status)
    connection.write(render_head(answer, connection.announced_keep_alive(request), b"Transfer-Encoding: chunked\r\n"))
    async with contextlib.aclosing(answer.stream) as stream:
        async for piece in stream:
            if connection.gone:
                break
            connection.write(chunk(piece))
    connection.write(chunk(b""))
    connection.done(request)


def _hang_up(service: "Service[Any]", connection: Connection, request: Request, *, reset: bool) -> None:
    service.traffic.answered(0)
    connection.close(reset=reset)
    connection.done(request)


async def _status(service: "Service[Any]", connection: Connection, request: Request, spec: FaultSpec) -> None:
    assert spec.status is not None
    if spec.stored:
        request.answers_as = spec.status
        await _whole(service.handle(request))
    else:
        service.refuse(request, spec.status)
    headers = {name.lower(): value for name, value in spec.headers.items()}
    guess = "text/html; charset=utf-8" if spec.body.lstrip().startswith("<") else JSON
    content_type = headers.pop("content-type", guess)
    connection.send(request, Answer(spec.status, spec.body.encode(), content_type, headers))


async def _drop(service: "Service[Any]", connection: Connection, request: Request, spec: FaultSpec) -> None:
    if spec.drop == "after":
        request.answers_as = 0
        await _whole(service.handle(request))
    else:
        service.refuse(request, 0)
    _hang_up(service, connection, request, reset=spec.reset)


async def _cut(service: "Service[Any]", connection: Connection, request: Request, spec: FaultSpec) -> None:
    request.answers_as = 0
    answer = await _whole(service.handle(request))
    connection.write(render(answer, connection.announced_keep_alive(request))[: spec.cut])
    _hang_up(service, connection, request, reset=spec.reset)


async def _dribble(service: "Service[Any]", connection: Connection, request: Request, spec: FaultSpec) -> None:
    assert spec.dribble is not None
    answer = await _whole(service.handle(request))
    service.traffic.answered(answer.status)
    wire = render(answer, connection.announced_keep_alive(request))
    size = max(1, int(spec.dribble * _DRIBBLE_TICK))
    for start in range(0, len(wire), size):
        if connection.gone:
            break
        connection.write(wire[start : start + size])
        await asyncio.sleep(size / spec.dribble)
    connection.done(request)


async def _hold(service: "Service[Any]", connection: Connection, request: Request, _spec: FaultSpec) -> None:
    answer = await _whole(service.handle(request))
    service.held += 1
    try:
        await service.gate.wait()
    finally:
        service.held -= 1
    connection.send(request, answer)


async def _transform(service: "Service[Any]", connection: Connection, request: Request, spec: FaultSpec) -> None:
    request.transform = spec.transform
    connection.send(request, await _whole(service.handle(request)))


async def _framing(service: "Service[Any]", connection: Connection, request: Request, spec: FaultSpec) -> None:
    answer = await _whole(service.handle(request))
    if spec.framing == "until_close":
        service.traffic.answered(answer.status)
        request.keep_alive = False
        connection.write(render_head(answer, None, b"") + answer.body)
        connection.done(request)
        return
    middle = len(answer.body) // 2
    connection.write(render_head(answer, connection.announced_keep_alive(request), b"Transfer-Encoding: chunked\r\n"))
    for piece in (answer.body[:middle], answer.body[middle:]):
        if piece:
            connection.write(chunk(piece))
    if spec.framing == "chunked_close":
        _hang_up(service, connection, request, reset=spec.reset)
    else:
        service.traffic.answered(answer.status)
        connection.write(chunk(b""))
        connection.done(request)


_EFFECTS: dict[str, Effect] = {
    "status": _status,
    "drop": _drop,
    "cut": _cut,
    "dribble": _dribble,
    "hold": _hold,
    "transform": _transform,
    "framing": _framing,
}
