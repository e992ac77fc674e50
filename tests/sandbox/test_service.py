"""A bug in a stand-in: its caller gets an answer, whatever way the request took."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

import pytest

from sandbox.connection import Connection
from sandbox.faults import Fault, FaultSpec
from sandbox.http import Answer, Request
from sandbox.service import Reply, Service
from sandbox.settings import ServiceSettings


class Broken(Service[ServiceSettings]):
    name: ClassVar[str] = "broken"

    def handle(self, request: Request) -> Reply:
        if request.path == "/later":
            return self._later()
        raise TypeError("ndarray is not C contiguous")

    async def _later(self) -> Answer:
        raise TypeError("in a task")


async def asked(path: str, *faults: FaultSpec) -> tuple[bytes, Broken]:
    loop = asyncio.get_running_loop()
    service = Broken(ServiceSettings())
    service.faults = [Fault(1, spec) for spec in faults]
    server = await loop.create_server(lambda: Connection(service, loop), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    server.close()
    return answer, service


@pytest.mark.parametrize(
    ("path", "faults"),
    [("/", []), ("/later", []), ("/", [FaultSpec(service="ollama", transform="nan")])],
    ids=["at once", "in a task", "spoilt"],
)
def test_an_exception_in_a_stand_in_is_a_500(
    path: str, faults: list[FaultSpec], caplog: pytest.LogCaptureFixture
) -> None:
    answer, service = asyncio.run(asked(path, *faults))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"a bug in the sandbox: TypeError" in answer
    assert service.traffic.under_way == 0
    assert service.traffic.statuses == {500: 1}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
