"""A supervisord plug-in that starts as many embedders as EMBEDDER_PROCESSES says.

supervisord could read it itself, as `numprocs=%(ENV_EMBEDDER_PROCESSES)s`, but an undefined variable is an error
there, and `.env` is not read at all. So the configuration has one `embedder`, and this makes the others like it. It is
named in `[rpcinterface:embedders]`, supervisord's way of loading plug-ins, and offers no calls.
"""

from __future__ import annotations

import copy
import os
import sys
from typing import Any

from supervisor.options import ServerOptions
from supervisor.supervisord import Supervisor

from common.failures.errors import SettingsError
from common.settings import settings

PROGRAM = "embedder"


class NoCalls:
    """The XML-RPC namespace of the plug-in: empty."""


def load(supervisord: Supervisor, **_: Any) -> NoCalls:
    """Make the embedders; called once at each start and reload of supervisord."""
    try:
        settings.read()
    except SettingsError as error:
        # not sys.exit: supervisord would show a traceback of it; and seven programs would only repeat this for ever
        print(error, file=sys.stderr, flush=True)
        os._exit(2)
    options = supervisord.options
    read = options.process_config

    def read_again(*args: Any, **kwargs: Any) -> None:
        read(*args, **kwargs)
        _multiply(options)

    options.process_config = read_again  # `supervisorctl reread` and `update` read the file anew
    _multiply(options)
    for config in options.process_group_configs:
        if config.name == PROGRAM:
            supervisord.process_groups[PROGRAM] = config.make_group()
    return NoCalls()


def _multiply(options: ServerOptions) -> None:
    """Give the group `embedder` its numbered processes, from `embedder_00` on."""
    number: int = settings.read().embedder_processes
    for group in options.process_group_configs:
        if group.name != PROGRAM:
            continue
        first = group.process_configs[0]
        group.process_configs = [_numbered(first, n) for n in range(number)]


def _numbered(first: Any, number: int) -> Any:
    config = copy.copy(first)
    config.name = f"{PROGRAM}_{number:02d}"
    config.command = first.command.replace(f"{PROGRAM}_00", config.name)
    return config
