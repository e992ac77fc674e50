"""Tests of the promises in docs/architecture.md, section 4, on a simulated machine without processes or sockets."""
