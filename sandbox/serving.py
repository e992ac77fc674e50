"""How a stand-in serves its connections: at once if possible, otherwise in an asyncio task for each request."""

import asyncio
import logging
from typing import Any

from sandbox.connection import Connection
from sandbox.effects import complete
from sandbox.faults import choose
from sandbox.http import Request, Response, json_response
from sandbox.stand_in import StandIn


class Serving:
    """Connects one stand-in to its connections (`connection.Application`)."""

    def __init__(self, stand_in: StandIn[Any]) -> None:
        self._stand_in = stand_in
        self.traffic = stand_in.traffic
        self._exchanges: set[asyncio.Task[None]] = set()

    @property
    def keep_alive_seconds(self) -> float:
        """Seconds for which a connection may be idle; 0: no limit."""
        return float(self._stand_in.settings.keep_alive_seconds)

    def serve(self, connection: Connection, request: Request) -> None:
        """Respond at once if no fault, delay or stream is involved, otherwise in an asyncio task."""
        stand_in = self._stand_in
        delay_s, fault = stand_in.settings.latency_seconds, None
        if stand_in.faults:
            extra_s, fault = choose(stand_in.faults, request)
            delay_s += extra_s
        if fault is None and not delay_s:
            try:
                reply = stand_in.handle(request)
            except Exception as error:  # noqa: BLE001  any error: the caller gets a response, the log a traceback
                self._report_bug(connection, request, error)
                return
            if isinstance(reply, Response) and reply.stream is None:
                connection.send(request, reply)
                return
            exchange = complete(stand_in, connection, request, reply=reply)
        else:
            exchange = complete(stand_in, connection, request, fault=fault, delay_s=delay_s)
        task = asyncio.get_running_loop().create_task(exchange)
        self._exchanges.add(task)
        task.add_done_callback(lambda task: self._on_completed(connection, request, task))

    async def cancel_exchanges(self) -> None:
        """Cancel the requests under way, and close their connections."""
        exchanges = list(self._exchanges)
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)

    def _on_completed(self, connection: Connection, request: Request, task: asyncio.Task[None]) -> None:
        self._exchanges.discard(task)
        if task.cancelled():
            connection.close()
            return
        error = task.exception()
        if error is not None:
            self._report_bug(connection, request, error)

    @staticmethod
    def _report_bug(connection: Connection, request: Request, error: BaseException) -> None:
        """Respond with 500 to a bug in a stand-in: a caller left waiting would look like a bug in the service."""
        logging.getLogger(__name__).error("a stand-in failed", exc_info=error)
        connection.send(request, json_response(500, {"error": f"a bug in the sandbox: {type(error).__name__}"}))
        connection.close()
