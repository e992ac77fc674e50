"""All stand-ins together, each with its listener."""

import asyncio
import itertools
import socket
from typing import Any

from sandbox.access_tokens import AccessTokens
from sandbox.api import ApiStandIn
from sandbox.connection import Connection
from sandbox.faults import Fault, FaultSpec
from sandbox.oauth2 import OAuth2StandIn
from sandbox.ollama import OllamaStandIn
from sandbox.openai import OpenAIStandIn
from sandbox.serving import Serving
from sandbox.stand_in import StandIn

HOST = "127.0.0.1"
_BACKLOG = 1024


class Listener:
    """The loopback port of one stand-in; it can be closed and opened again."""

    def __init__(self, stand_in: StandIn[Any], port: int) -> None:
        self._serving = Serving(stand_in)
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self.port = port

    async def up(self) -> None:
        """Listen, on the same port as before if there was one."""
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        if self._reserved is not None:
            self._reserved.close()
        self._reserved = None
        self._server = await loop.create_server(
            lambda: Connection(self._serving, loop),
            HOST,
            self.port,
            family=socket.AF_INET,
            backlog=_BACKLOG,
            reuse_address=True,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def down(self) -> None:
        """Refuse new connections, and reset the open ones."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        # The port stays bound without listening: connections are refused, and no other process can take the port.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((HOST, self.port))
        for connection in list(self._serving.traffic.connections):
            connection.close(reset=True)

    async def cancel_exchanges(self) -> None:
        """Cancel the requests under way."""
        await self._serving.cancel_exchanges()


class World:
    """Everything that is outside the service under test."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.tokens = AccessTokens()
        self.api = ApiStandIn(self.tokens)
        self.oauth2 = OAuth2StandIn(self.tokens)
        self.openai = OpenAIStandIn()
        self.ollama = OllamaStandIn()
        services: list[StandIn[Any]] = [self.api, self.oauth2, self.openai, self.ollama]
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
        """Put a fault in force; returns its number."""
        fault = Fault(next(self._fault_numbers), spec)
        self.services[spec.service].faults.append(fault)
        return fault.number

    def faults(self) -> list[Fault]:
        """All faults in force, oldest first."""
        everywhere = itertools.chain.from_iterable(service.faults for service in self.services.values())
        return sorted(everywhere, key=lambda fault: fault.number)

    def clear_faults(self, number: int | None = None) -> int:
        """Remove one fault, or all; returns how many were removed."""
        before = len(self.faults())
        for service in self.services.values():
            service.faults = [fault for fault in service.faults if number is not None and fault.number != number]
        return before - len(self.faults())

    async def reset(self) -> None:
        """Return everything to the initial state: settings, tasks, records, tokens, faults, listeners."""
        for name, service in self.services.items():
            # Otherwise a delayed or held request would be carried out during the next test.
            await self.listeners[name].cancel_exchanges()
            service.reset()
        await self.up()
