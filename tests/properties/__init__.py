"""The promises of the design's section 4, on simulated machines: any seed, no process, no socket, no clock."""
