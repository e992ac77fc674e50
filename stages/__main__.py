"""The operator's commands: `python -m stages check` and `python -m stages dead-letters`."""

from __future__ import annotations

import argparse
import sys

from common import __version__
from common.settings import settings
from stages import check, dead_letters


def main() -> int:
    """Read the command and do it; the exit status says whether all was well."""
    parser = argparse.ArgumentParser(prog="python -m stages", description=__doc__)
    parser.add_argument("--version", action="version", version=f"ai-task-processor {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="say whether settings, state directory, token endpoint and API are usable")
    dead_letters.add_to(commands)
    options = parser.parse_args()
    config = settings.read_or_exit()
    return check.run(config) if options.command == "check" else dead_letters.run(config, options)


if __name__ == "__main__":
    sys.exit(main())
