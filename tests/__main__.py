"""`make test`: install what the tests need from outside, then run them all, the quick ones first.

They run in several processes, for the slow ones mostly wait; a file stays in one, because its tests share a pipeline.
"""

from __future__ import annotations

import sys

import pytest

from tests import needs

PROCESSES = 3
"""On two cores they take half as long as one would; more would only make tests wait for each other."""
PARALLEL = ("--numprocesses", str(PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder")


def main() -> int:
    """Returns pytest's exit status; arguments go to pytest."""
    for line in needs.install():
        sys.stdout.write(line + "\n")
    return int(pytest.main([*PARALLEL, *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
