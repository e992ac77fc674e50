"""`make test`: install the programs that the tests need, then run all tests, the fast ones first.

They run in several processes, because slow tests mostly wait. The tests of one file run in one process, because they
share a pipeline.
"""

from __future__ import annotations

import sys

import pytest

from tests import needs

PROCESSES = 3
"""On two cores, three take half as long as one; with more, tests only wait for each other."""
PARALLEL = ("--numprocesses", str(PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder")


def main() -> int:
    """Run the tests with the arguments of the command line; returns the exit status of pytest."""
    for line in needs.install():
        sys.stdout.write(line + "\n")
    return int(pytest.main([*PARALLEL, *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
