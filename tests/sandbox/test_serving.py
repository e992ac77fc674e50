"""A bug in a stand-in is reported to the caller as a 500, at once and in asyncio tasks."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

import pytest

from sandbox.connection import Connection
from sandbox.faults import Fault, FaultSpec
from sandbox.http import Request, Response
from sandbox.serving import Serving
from sandbox.settings import ServiceSettings
from sandbox.stand_in import Reply, StandIn


class BrokenStandIn(StandIn[ServiceSettings]):
    name: ClassVar[str] = "broken"

    def handle(self, request: Request) -> Reply:
        if request.path == "/later":
            return self._later()
        raise TypeError("ndarray is not C contiguous")

    async def _later(self) -> Response:
        raise TypeError("in a task")


async def request_to(path: str, *faults: FaultSpec) -> tuple[bytes, BrokenStandIn]:
    loop = asyncio.get_running_loop()
    stand_in = BrokenStandIn(ServiceSettings())
    stand_in.faults = [Fault(1, spec) for spec in faults]
    server = await loop.create_server(lambda: Connection(Serving(stand_in), loop), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
    response = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    server.close()
    return response, stand_in


@pytest.mark.parametrize(
    ("path", "faults"),
    [("/", []), ("/later", []), ("/", [FaultSpec(service="ollama", transform="nan")])],
    ids=["at once", "in a task", "with a transform"],
)
def test_an_exception_in_a_stand_in_is_answered_with_500(
    path: str, faults: list[FaultSpec], caplog: pytest.LogCaptureFixture
) -> None:
    response, stand_in = asyncio.run(request_to(path, *faults))
    assert response.startswith(b"HTTP/1.1 500 ")
    assert b"a bug in the sandbox: TypeError" in response
    assert stand_in.traffic.under_way == 0
    assert stand_in.traffic.statuses == {500: 1}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
