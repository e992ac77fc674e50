"""A stand-in for the token broker, which has its own tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.process.actions import Send
from common.wire import messages as m
from tests.simulator.outside import Api
from tests.simulator.world import Process, World


class BrokerProcess(Process):
    """Sends the current token, and fetches a new one if it was rejected."""

    def __init__(self, world: World, api: Api) -> None:
        super().__init__(world, "token_broker")
        self.api = api
        self.token = 1

    def begin(self) -> None:
        """Nothing is on disk."""

    def handle(self, message: m.TokenRequest) -> Iterable[Any]:
        if message.rejected == str(self.token):
            self.token = self.api.token
        name = str(self.token)
        yield Send(message.reply_to, m.Token(f"secret {name}", self.world.instant.wall + 1e6, name))

    def tick(self) -> Iterable[Any]:
        return ()
