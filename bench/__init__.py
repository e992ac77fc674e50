"""Benchmarks; each compares the service with another program in the same run."""
