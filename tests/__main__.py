"""`make test`: install what the tests need from outside, then run them all, the quick ones first."""

from __future__ import annotations

import sys

import pytest

from tests import needs

TOGETHER = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
"""Two files at a time, in their order: most tests of real processes wait more than they compute."""


def main() -> int:
    """Returns pytest's exit status; arguments go to pytest."""
    for line in needs.install():
        sys.stdout.write(line + "\n")
    return int(pytest.main([*TOGETHER, *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
