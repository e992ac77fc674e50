"""What every process of the pipeline is made of: its loop, clock, store, logs and metrics."""
