"""Quotas: counters by bucket, without I/O."""
