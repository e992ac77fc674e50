"""Tests of the promises in section 4 of the design on a simulated machine: no process, no socket, no real clock."""
