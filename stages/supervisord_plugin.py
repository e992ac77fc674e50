"""A supervisord plug-in: it starts EMBEDDER_PROCESSES embedders, and lets all programs write to supervisord's output.

supervisord would open the programs' log by its path. `/dev/stdout` cannot be opened where standard output is a socket
(systemd's journal: ENXIO), and a file that is opened a second time is overwritten from its beginning. Therefore the
programs inherit supervisord's own standard output: a terminal, a pipe, a file or a socket.

supervisord could take the number of embedders from `numprocs=%(ENV_EMBEDDER_PROCESSES)s`, but there an undefined
variable is an error, and `.env` is not read. So the configuration has one `embedder`, and this plug-in copies it.
A program notices the death of its supervisord even while it starts: it finds our pid in its environment.
`[rpcinterface:embedders]` loads the plug-in, which is supervisord's way to load one; it offers no calls.

supervisord's own socket and pid file belong into RUNTIME_DIR, so that two pipelines can run from one folder; its
configuration cannot name a variable that may be unset. So the plug-in replaces the paths of `supervisord.conf`, for
supervisord while it reads its configuration, and for supervisorctl through `[ctlplugin:runtime_dir]`.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from supervisor.events import ProcessStateBackoffEvent, ProcessStateFatalEvent, subscribe
from supervisor.options import ServerOptions
from supervisor.process import Subprocess
from supervisor.supervisord import Supervisor

from common.failures.errors import Fatal, SettingsError
from common.ownership import private_directory
from common.settings import settings
from common.settings.settings import LONGEST_SOCKET_PATH, Settings
from common.supervisor_watch import SUPERVISORD_PID

PROGRAM = "embedder"
STOP_MARGIN_S = {PROGRAM: 20, "publisher": 30}
"""Seconds beyond the longest provider request that these programs may take to stop, if a timeout is set so long that
`stopwaitsecs` in supervisord.conf is too short. An embedder that is killed at a provider request pays for it twice."""


class InheritingProcess(Subprocess):  # type: ignore[misc]  # supervisor has no types
    """A program that writes to supervisord's own standard output, its standard error included, and knows our pid."""

    def spawn(self) -> int | None:
        """Start the program; returns its pid."""
        os.environ[SUPERVISORD_PID] = str(os.getpid())  # for the child; not earlier, since supervisord may daemonize
        pid: int | None = super().spawn()
        return pid

    def _prepare_child_fds(self) -> None:
        options = self.config.options
        options.dup2(self.pipes["child_stdin"], 0)
        options.dup2(1, 2)
        for descriptor in range(3, options.minfds):
            options.close_fd(descriptor)


SOCKET, PID_FILE = "supervisord.sock", "supervisord.pid"
CONFIGURED = Path("data")
"""The folder beside supervisord.conf that the file names; a file that names another one is obeyed."""
_read_servers = ServerOptions.server_configs_from_parser


def _servers_in_runtime_dir(options: ServerOptions, parser: Any) -> list[dict[str, Any]]:
    """Read the configuration's servers, with the Unix socket in RUNTIME_DIR."""
    servers: list[dict[str, Any]] = _read_servers(options, parser)
    for server in servers:
        if server.get("file") == str(Path(options.here, CONFIGURED, SOCKET)):
            with contextlib.suppress(SettingsError, Fatal):  # `load` reports it
                server["file"] = _short_enough(_runtime_file(SOCKET), server["file"])
    return servers


# supervisord imports this module while it reads its configuration, just before it reads its servers
ServerOptions.server_configs_from_parser = _servers_in_runtime_dir


def _short_enough(path: Path, otherwise: str) -> str:
    """The path, if supervisord can make a socket there: it first makes one with its pid at the end of the name."""
    return str(path) if len(str(path)) + len(".1234567") <= LONGEST_SOCKET_PATH else otherwise


def _runtime_file(name: str) -> Path:
    """A file in RUNTIME_DIR, which is made if need be. Raises `SettingsError` or `Fatal`."""
    return private_directory(settings.read().sockets_dir, "RUNTIME_DIR") / name


def control(controller: Any, **_: Any) -> NoCalls:
    """Let supervisorctl find supervisord in RUNTIME_DIR. supervisorctl calls this once at its start."""
    options = controller.options
    if options.serverurl == f"unix://{Path(options.here, CONFIGURED, SOCKET)}":
        runtime_dir, state_dir = os.environ.get("RUNTIME_DIR"), os.environ.get("STATE_DIR")
        with contextlib.suppress(SettingsError):  # supervisorctl needs no other setting
            read = settings.read()
            runtime_dir, state_dir = str(read.sockets_dir), None
        folder = Path(runtime_dir) if runtime_dir else Path(state_dir or "data", "run")
        configured = options.serverurl.removeprefix("unix://")
        options.serverurl = f"unix://{_short_enough(folder.absolute() / SOCKET, configured)}"
    return NoCalls()


class NoCalls:
    """The XML-RPC namespace of the plug-in, and its commands of supervisorctl: none."""


def load(supervisord: Supervisor, **_: Any) -> NoCalls:
    """Make the embedders. supervisord calls this once at each start and reload."""
    options = supervisord.options
    try:
        pid_file = str(_runtime_file(PID_FILE))
    except (SettingsError, Fatal) as error:
        # not sys.exit: supervisord would print a traceback, and each program would then fail with this error
        print(error, file=sys.stderr, flush=True)
        os._exit(2)
    if options.pidfile == str(Path(options.here, CONFIGURED, PID_FILE)):
        options.pidfile = pid_file
    read = options.process_config

    def read_again(*args: Any, **kwargs: Any) -> None:
        read(*args, **kwargs)
        _multiply(options)

    options.process_config = read_again  # `supervisorctl reread` and `update` read the file again
    _multiply(options)
    for config in options.process_group_configs:
        supervisord.process_groups[config.name] = config.make_group()
    for event in (ProcessStateBackoffEvent, ProcessStateFatalEvent):
        subscribe(event, _report_failed_start)
    return NoCalls()


def _report_failed_start(event: Any) -> None:
    """Print what could not be started: supervisord logs it below the level of its own log."""
    process = event.process
    if process.spawnerr:
        print(f"{process.config.name} cannot be started: {process.spawnerr}", file=sys.stderr, flush=True)


def _multiply(options: ServerOptions) -> None:
    """Give the group `embedder` its numbered processes, from `embedder_00` on, and all programs the time to stop."""
    read: Settings = settings.read()
    request_s = math.ceil(max(read.openai_timeout, read.ollama_timeout))
    for group in options.process_group_configs:
        if group.name == PROGRAM:
            first = group.process_configs[0]
            group.process_configs = [_numbered(first, n) for n in range(read.embedder_processes)]
        for config in group.process_configs:
            if group.name in STOP_MARGIN_S:
                config.stopwaitsecs = max(config.stopwaitsecs, request_s + STOP_MARGIN_S[group.name])
            config.make_process = partial(_make_process, config)


def _make_process(config: Any, group: Any = None) -> InheritingProcess:
    process = InheritingProcess(config)
    process.group = group
    return process


def _numbered(first: Any, number: int) -> Any:
    config = copy.copy(first)
    config.name = f"{PROGRAM}_{number:02d}"
    config.command = first.command.replace(f"{PROGRAM}_00", config.name)
    return config
