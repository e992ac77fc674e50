"""Providers and their failures, seen from outside the whole pipeline: what became of the tasks, and what was paid."""
