"""rpmemd as a child process, without ssh: the ``local:`` target."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from rpmem.base.target import Target
from rpmem.errors import LaunchFailed
from rpmem.launch.child import ChildTransport

# Set by sshd to describe its connection. In a child of ours they would describe an unrelated one,
# and rpmemd binds its listener to the address it finds there.
_SSHD_VARIABLES = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "SSH_ORIGINAL_COMMAND")


class LocalTransport(ChildTransport):
    """rpmemd as a child process."""

    launcher = "local"

    @property
    def peer_host(self) -> str:  # noqa: D102 - see Transport
        return "127.0.0.1"

    @property
    def carrier(self) -> socket.socket | None:  # noqa: D102
        return self._stdin


def start(
    target: Target, arguments: Sequence[str], *, command: str | None, timeout_s: float
) -> LocalTransport:
    """Start rpmemd on this machine.

    Parameters
    ----------
    target : Target
        A local target; its directory becomes ``--poolset-dir``.
    arguments : sequence of str
        For rpmemd.
    command : str, optional
        A shell command to use instead of this interpreter's rpmemd; the arguments are appended.
    timeout_s : float
        Longest wait of calls without a limit of their own.

    Returns
    -------
    LocalTransport
        Running; the status word will tell whether rpmemd accepts its configuration.
    """
    if target.local_directory is not None:
        arguments = ["--poolset-dir", target.local_directory, *arguments]
    if command is not None:
        command = " ".join((command, shlex.join(arguments))).rstrip()
        argv = ["/bin/sh", "-c", command]
    else:
        if not sys.executable:
            raise LaunchFailed(
                "the path of this Python interpreter is not known",
                hint="Set sys.executable, or use a target that is reached over ssh",
            )
        # -P: ignore an rpmemd.py in the current directory.
        argv = [sys.executable, "-P", "-m", "rpmemd", *arguments]
        command = shlex.join(argv)
    return LocalTransport(
        argv,
        target=target,
        command=command,
        timeout_s=timeout_s,
        environment=_child_environment(),
    )


def _child_environment() -> dict[str, str]:
    """Return the environment with which the child finds the same rpmemd."""
    environment = {name: value for name, value in os.environ.items() if name not in _SSHD_VARIABLES}
    root = str(Path(__file__).resolve().parents[2])
    installed = {os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    if root not in installed:
        rest = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = root if not rest else os.pathsep.join((root, rest))
    return environment
