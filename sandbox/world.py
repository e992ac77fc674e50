"""All services together, each with its listener."""

import asyncio
import itertools
import socket
from typing import Any

from sandbox.api import Api
from sandbox.connection import Application, Connection
from sandbox.faults import Fault, FaultSpec
from sandbox.oauth2 import OAuth2
from sandbox.ollama import Ollama
from sandbox.openai import OpenAI
from sandbox.service import Service
from sandbox.tokens import TokenStore

HOST = "127.0.0.1"
_BACKLOG = 1024


class Listener:
    """One port on loopback, that can be closed and bound again."""

    def __init__(self, application: Application, port: int) -> None:
        self._application = application
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self.port = port

    async def up(self) -> None:
        """Listen; on the port of last time, if there was one."""
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        if self._reserved is not None:
            self._reserved.close()
        self._reserved = None
        self._server = await loop.create_server(
            lambda: Connection(self._application, loop),
            HOST,
            self.port,
            family=socket.AF_INET,
            backlog=_BACKLOG,
            reuse_address=True,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def down(self) -> None:
        """Refuse connections, and break those there are."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        # bound and not listening: connections are refused, and no other process gets the port meanwhile
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((HOST, self.port))
        for connection in list(self._application.traffic.connections):
            connection.close(reset=True)


class World:
    """The services outside the service under test."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.tokens = TokenStore()
        self.api = Api(self.tokens)
        self.oauth2 = OAuth2(self.tokens)
        self.openai = OpenAI()
        self.ollama = Ollama()
        services: list[Service[Any]] = [self.api, self.oauth2, self.openai, self.ollama]
        self.services = {service.name: service for service in services}
        self.listeners = {name: Listener(service, ports[name]) for name, service in self.services.items()}
        self._fault_numbers = itertools.count(1)

    async def up(self) -> None:
        """Listen on all ports."""
        for listener in self.listeners.values():
            await listener.up()

    def down(self) -> None:
        """Close all ports."""
        for listener in self.listeners.values():
            listener.down()

    def add_fault(self, spec: FaultSpec) -> int:
        """Put a fault in force; its number."""
        fault = Fault(next(self._fault_numbers), spec)
        self.services[spec.service].faults.append(fault)
        return fault.number

    def faults(self) -> list[Fault]:
        """All faults in force, oldest first."""
        everywhere = itertools.chain.from_iterable(service.faults for service in self.services.values())
        return sorted(everywhere, key=lambda fault: fault.number)

    def clear_faults(self, number: int | None = None) -> int:
        """Lift one fault, or all; how many there were."""
        before = len(self.faults())
        for service in self.services.values():
            service.faults = [fault for fault in service.faults if number is not None and fault.number != number]
        return before - len(self.faults())

    async def reset(self) -> None:
        """Everything as at the start: settings, tasks, records, tokens, faults, listeners."""
        for service in self.services.values():
            await service.break_off()  # else what was delayed or held would still happen, in the next test
            service.reset()
        await self.up()
