"""The monitor says how the service is: `GET /health`, `/ready` and `/metrics` on `METRICS_PORT`.

Comes in: `Heartbeat` from every process, its own included, each second. Goes out: nothing but HTTP answers.

Owns nothing on disk. Survives: its own death (the next heartbeats tell it all again; its sums then begin with what the
processes that live have counted), the death of any other process (that is what it is for), and clients that are slow,
hostile or many: they are cut off after a few seconds and never wait for, or hold up, the loop or each other.
"""
