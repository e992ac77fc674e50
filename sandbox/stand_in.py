"""The base class of all stand-ins: settings, faults, counters, and the method that carries out a request."""

from abc import ABC, abstractmethod
from asyncio import Event
from collections.abc import Awaitable
from typing import Any, ClassVar, Generic

from sandbox.connection import Traffic
from sandbox.faults import Fault
from sandbox.http import Request, Response
from sandbox.settings import SettingsT

Reply = Response | Awaitable[Response]


class StandIn(ABC, Generic[SettingsT]):
    """Stands in for one external service. Subclasses carry out its requests; `serving.py` and `effects.py` send."""

    name: ClassVar[str]
    """The name of the service, as faults, settings and the summary use it."""
    serves_closed_connections: ClassVar[bool] = True
    """Whether a delayed request is carried out although its caller has closed the connection."""

    def __init__(self, settings: SettingsT) -> None:
        self._defaults = settings
        self.settings = settings
        self.traffic = Traffic()
        self.faults: list[Fault] = []
        """The faults in force, oldest first."""
        self.held = 0
        """Responses that a fault of type `hold` keeps back now."""
        self.abandoned = 0
        """Requests that were not carried out because their caller had closed the connection."""
        self.gate = Event()
        """Set when held responses may be sent."""

    @abstractmethod
    def handle(self, request: Request) -> Reply:
        """Carry out the request."""

    def refuse(self, request: Request, status: int) -> None:
        """Record a request that a fault answered without carrying it out (status 0: the connection was closed)."""

    def counters(self) -> dict[str, Any]:
        """The counters of this stand-in, for the summary."""
        return {}

    def change(self, settings: SettingsT) -> None:
        """Put new settings in force, for open connections too."""
        self.settings = settings
        for connection in list(self.traffic.connections):
            connection.check_idle()

    def release(self) -> None:
        """Send all held responses."""
        self.gate.set()
        self.gate = Event()

    def reset(self) -> None:
        """Return to the initial state."""
        self.faults = []
        self.abandoned = 0
        self.release()
        self.change(self._defaults)
        self.traffic.reset()

    def summary(self) -> dict[str, Any]:
        """All counters; cheap to compute."""
        common = {**self.traffic.summary(), "held": self.held, "abandoned": self.abandoned}
        return {**common, **self.counters()}
