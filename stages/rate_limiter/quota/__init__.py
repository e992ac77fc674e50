"""The quotas: how they are counted, charged and refunded, without I/O and without a clock."""
