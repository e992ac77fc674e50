"""What every stand-in has, and the road from a request to its answer."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, ClassVar, Generic

from sandbox.connection import Connection, Traffic
from sandbox.effects import play
from sandbox.faults import Fault, choose
from sandbox.http import Answer, Request, json_answer
from sandbox.settings import SettingsT

Reply = Answer | Awaitable[Answer]


class Service(ABC, Generic[SettingsT]):
    """One stand-in: subclasses say how a request is answered, and what to forget at a reset."""

    name: ClassVar[str]
    serves_the_gone: ClassVar[bool] = True
    """Whether a request is carried out although its caller hung up while it was delayed."""

    def __init__(self, settings: SettingsT) -> None:
        self._defaults = settings
        self.settings = settings
        self.traffic = Traffic()
        self.faults: list[Fault] = []
        self.held = 0
        self.abandoned = 0
        self.gate = asyncio.Event()
        self._exchanges: set[asyncio.Task[None]] = set()

    @abstractmethod
    def handle(self, request: Request) -> Reply:
        """Carry out the request."""

    def refuse(self, request: Request, status: int) -> None:
        """Take note that a fault answered (status 0: dropped) a request that was not carried out."""

    def counters(self) -> dict[str, Any]:
        """The service's own part of the summary."""
        return {}

    @property
    def keep_alive_seconds(self) -> float:
        """How long a connection may idle; 0: for ever."""
        return self.settings.keep_alive_seconds

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer at once where nothing stands between, else in a task of its own."""
        delay, fault = self.settings.latency_seconds, None
        if self.faults:
            extra, fault = choose(self.faults, request)
            delay += extra
        if fault is None and not delay:
            try:
                reply = self.handle(request)
            except Exception as error:  # noqa: BLE001  whatever it is, its caller gets an answer, and we a traceback
                self._broke(connection, request, error)
                return
            if isinstance(reply, Answer) and reply.stream is None:
                connection.send(request, reply)
                return
            exchange = play(self, connection, request, reply=reply)
        else:
            exchange = play(self, connection, request, fault=fault, delay=delay)
        task = asyncio.get_running_loop().create_task(exchange)
        self._exchanges.add(task)
        task.add_done_callback(lambda task: self._over(connection, request, task))

    def _over(self, connection: Connection, request: Request, task: asyncio.Task[None]) -> None:
        self._exchanges.discard(task)
        if task.cancelled():
            connection.close()
            return
        error = task.exception()
        if error is not None:
            self._broke(connection, request, error)

    @staticmethod
    def _broke(connection: Connection, request: Request, error: BaseException) -> None:
        """A bug in a stand-in is an answer of 500: a caller that waits for ever would look like the service's bug."""
        logging.getLogger(__name__).error("a stand-in failed", exc_info=error)
        connection.send(request, json_answer(500, {"error": f"a bug in the sandbox: {type(error).__name__}"}))
        connection.close()

    def change(self, settings: SettingsT) -> None:
        """Put new settings in force, for open connections too."""
        self.settings = settings
        for connection in list(self.traffic.connections):
            connection.check_idle()

    def release(self) -> None:
        """Let all held answers go."""
        self.gate.set()
        self.gate = asyncio.Event()

    async def break_off(self) -> None:
        """End the exchanges that are under way, as if they had never been; their connections are closed."""
        exchanges = list(self._exchanges)
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)

    def reset(self) -> None:
        """Back to how it started."""
        self.faults = []
        self.abandoned = 0
        self.release()
        self.change(self._defaults)
        self.traffic.reset()

    def summary(self) -> dict[str, Any]:
        """Cheap counters."""
        common = {**self.traffic.summary(), "held": self.held, "abandoned": self.abandoned}
        return {**common, **self.counters()}
