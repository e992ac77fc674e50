"""The operator's commands: `python -m stages check`."""

from __future__ import annotations

import argparse
import sys

from common import settings
from stages.check import run


def main() -> int:
    """Read the command and do it; the exit status says whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m stages", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="say whether settings, state directory, token endpoint and API are usable")
    parser.parse_args()
    return run(settings.read_or_exit())


if __name__ == "__main__":
    sys.exit(main())
