"""The operator's commands: `python -m stages check` and `python -m stages dead-letters`."""

from __future__ import annotations

import argparse
import sys

from common import __version__
from common.settings import settings
from stages import check, dead_letters


def main() -> int:
    """Run the command of the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m stages", description=__doc__)
    parser.add_argument("--version", action="version", version=f"ai-task-processor {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check the settings and everything that the service needs, one line each")
    dead_letters.add_to(commands)
    options = parser.parse_args()
    config = settings.read_or_exit()
    return check.run(config) if options.command == "check" else dead_letters.run(config, options)


if __name__ == "__main__":
    sys.exit(main())
