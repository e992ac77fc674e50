"""The programs that users would write instead, on the same tasks and the same API stand-in.

Each peer GETs the pending tasks, takes for each a vector of 1,536 float32 numbers, and PATCHes it as JSON. It is a
program of its own that gets its settings from the environment. It prints a line when it is ready, starts at a line on
its standard input, and runs until it is stopped. What it needs is installed on demand into `.bench/`.
"""
