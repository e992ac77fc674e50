"""`python -m sandbox`: start the stand-ins."""

import argparse
from pathlib import Path

import uvloop

from sandbox.server import run

_LISTENERS = ("api", "oauth2", "openai", "ollama", "control")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="sandbox", description="Stand-ins for all external services.")
    for name in _LISTENERS:
        parser.add_argument(f"--{name}-port", type=int, default=0, help="default: a free port")
    parser.add_argument("--announce", type=Path, help="also write the addresses to this file, as one JSON line")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when the parent process has ended")
    options = parser.parse_args()
    ports = {name: getattr(options, f"{name}_port") for name in _LISTENERS}
    uvloop.run(run(ports, options.announce, until_stdin_closes=options.until_stdin_closes))


if __name__ == "__main__":
    main()
