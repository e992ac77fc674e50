"""Completes the exchanges that take time: delayed, streamed, or changed by a fault (faults.py describes faults)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from sandbox.connection import Connection
from sandbox.faults import Fault, FaultSpec
from sandbox.http import JSON, Request, Response, chunk, render, render_head
from sandbox.stand_in import Reply, StandIn

_DRIBBLE_TICK_S = 0.05
"""Seconds between two pieces of a slow response; a piece has at least one byte."""

Effect = Callable[[StandIn[Any], Connection, Request, FaultSpec], Awaitable[None]]


async def complete(
    stand_in: StandIn[Any],
    connection: Connection,
    request: Request,
    *,
    fault: Fault | None = None,
    delay_s: float = 0.0,
    reply: Reply | None = None,
) -> None:
    """Complete one exchange: wait, apply the fault, carry out the request (unless `reply` is given), send."""
    if delay_s:
        await asyncio.sleep(delay_s)
        if connection.closed and not stand_in.serves_closed_connections:
            stand_in.abandoned += 1
            connection.done(request)
            return
    if fault is not None and fault.effect != "delay":
        await _EFFECTS[fault.effect](stand_in, connection, request, fault.spec)
        return
    response = await _awaited(stand_in.handle(request) if reply is None else reply)
    if response.stream is None:
        connection.send(request, response)
    else:
        await _send_stream(stand_in, connection, request, response)


async def _awaited(reply: Reply) -> Response:
    return reply if isinstance(reply, Response) else await reply


async def _complete_response(reply: Reply) -> Response:
    """The response, with its stream (if it has one) read into its body."""
    response = await _awaited(reply)
    if response.stream is not None:
        response.body = b"".join([piece async for piece in response.stream])
        response.stream = None
    return response


async def _send_stream(stand_in: StandIn[Any], connection: Connection, request: Request, response: Response) -> None:
    assert response.stream is not None
    stand_in.traffic.count_response(response.status)
    connection.write(render_head(response, connection.announced_keep_alive(request), b"Transfer-Encoding: chunked\r\n"))
    async with contextlib.aclosing(response.stream) as stream:
        async for piece in stream:
            if connection.closed:
                break
            connection.write(chunk(piece))
    connection.write(chunk(b""))
    connection.done(request)


def _hang_up(stand_in: StandIn[Any], connection: Connection, request: Request, *, reset: bool) -> None:
    stand_in.traffic.count_response(0)
    connection.close(reset=reset)
    connection.done(request)


async def _status(stand_in: StandIn[Any], connection: Connection, request: Request, spec: FaultSpec) -> None:
    assert spec.status is not None
    if spec.stored:
        request.status_seen = spec.status
        await _complete_response(stand_in.handle(request))
    else:
        stand_in.refuse(request, spec.status)
    headers = {name.lower(): value for name, value in spec.headers.items()}
    guess = "text/html; charset=utf-8" if spec.body.lstrip().startswith("<") else JSON
    content_type = headers.pop("content-type", guess)
    connection.send(request, Response(spec.status, spec.body.encode(), content_type, headers))


async def _drop(stand_in: StandIn[Any], connection: Connection, request: Request, spec: FaultSpec) -> None:
    if spec.drop == "after":
        request.status_seen = 0
        await _complete_response(stand_in.handle(request))
    else:
        stand_in.refuse(request, 0)
    _hang_up(stand_in, connection, request, reset=spec.reset)


async def _cut(stand_in: StandIn[Any], connection: Connection, request: Request, spec: FaultSpec) -> None:
    request.status_seen = 0
    response = await _complete_response(stand_in.handle(request))
    connection.write(render(response, connection.announced_keep_alive(request))[: spec.cut])
    _hang_up(stand_in, connection, request, reset=spec.reset)


async def _dribble(stand_in: StandIn[Any], connection: Connection, request: Request, spec: FaultSpec) -> None:
    assert spec.dribble is not None
    response = await _complete_response(stand_in.handle(request))
    stand_in.traffic.count_response(response.status)
    wire = render(response, connection.announced_keep_alive(request))
    size = max(1, int(spec.dribble * _DRIBBLE_TICK_S))
    for start in range(0, len(wire), size):
        if connection.closed:
            break
        connection.write(wire[start : start + size])
        await asyncio.sleep(size / spec.dribble)
    connection.done(request)


async def _hold(stand_in: StandIn[Any], connection: Connection, request: Request, _spec: FaultSpec) -> None:
    response = await _complete_response(stand_in.handle(request))
    stand_in.held += 1
    try:
        await stand_in.gate.wait()
    finally:
        stand_in.held -= 1
    connection.send(request, response)


async def _transform(stand_in: StandIn[Any], connection: Connection, request: Request, spec: FaultSpec) -> None:
    request.transform = spec.transform
    connection.send(request, await _complete_response(stand_in.handle(request)))


async def _framing(stand_in: StandIn[Any], connection: Connection, request: Request, spec: FaultSpec) -> None:
    response = await _complete_response(stand_in.handle(request))
    if spec.framing == "until_close":
        stand_in.traffic.count_response(response.status)
        request.keep_alive = False
        connection.write(render_head(response, None, b"") + response.body)
        connection.done(request)
        return
    middle = len(response.body) // 2
    connection.write(render_head(response, connection.announced_keep_alive(request), b"Transfer-Encoding: chunked\r\n"))
    for piece in (response.body[:middle], response.body[middle:]):
        if piece:
            connection.write(chunk(piece))
    if spec.framing == "chunked_close":
        _hang_up(stand_in, connection, request, reset=spec.reset)
    else:
        stand_in.traffic.count_response(response.status)
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
