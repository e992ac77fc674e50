"""Benchmarks: the pipeline against other programs, its parts one by one, and what it costs in the long run.

`python -m bench --list` names them. `docs/benchmarks.md` says what each measures, and what it does not.
"""
