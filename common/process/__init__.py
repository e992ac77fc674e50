"""The parts that every process has: the loop, its actions, the clock, the store, logs and metrics."""

from common import lean_imports  # noqa: F401  before the first import of structlog and prometheus_client
