"""`make test`: install what the tests need from outside, then run them all, the quick ones first."""

from __future__ import annotations

import sys

import pytest

from tests import needs


def main() -> int:
    """Returns pytest's exit status; arguments go to pytest."""
    for line in needs.install():
        sys.stdout.write(line + "\n")
    return int(pytest.main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
