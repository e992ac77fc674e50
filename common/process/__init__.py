"""The parts that every process has: the loop, its actions, the clock, the store, logs and metrics."""
