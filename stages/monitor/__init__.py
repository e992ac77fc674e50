"""The monitor reports how the service is: `GET /health`, `/ready` and `/metrics` on `METRICS_PORT`.

Comes in: `Heartbeat` from every process each second, its own included.
Goes out: HTTP responses only.
Owns: nothing on disk.
Survives: its own death (the next heartbeats contain all that it needs; its sums then begin with what the living
processes have counted), the death of any other process, and clients that are slow, hostile or many: they are cut off
after a few seconds, and never delay the loop or each other.
"""
