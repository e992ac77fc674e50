"""Tests: decisions first, then contracts, edges, the whole pipeline, and faults."""
