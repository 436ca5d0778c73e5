"""Starting rpmemd on a target: the system's ssh, paramiko, or a child process of this one.

`launch` returns a `Transport`, the byte stream to rpmemd; `diagnose` explains why there is none.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rpmem.base import environment as variables
from rpmem.base.environment import LAUNCHERS
from rpmem.base.remedies import remedy_for, shortage
from rpmem.errors import LaunchFailed, RpmemError, UsageError
from rpmem.launch.base import Deadline, Transport
from rpmem.launch.diagnose import diagnose

if TYPE_CHECKING:
    from rpmem.base.environment import Environment
    from rpmem.base.target import Target

__all__ = ["Deadline", "Transport", "diagnose", "launch"]


def launch(
    target: Target,
    arguments: Sequence[str] = (),
    *,
    environment: Environment | None = None,
    launcher: str = "auto",
    command: str | None = None,
    timeout_s: float | None = None,
    ipv4_only: bool = False,
) -> Transport:
    """Start rpmemd on a target.

    Parameters
    ----------
    target : Target
        The target; a local one starts a child process, whatever `launcher` is.
    arguments : sequence of str
        For rpmemd, after those in the command; quoted for the far side's shell.
    environment : Environment, optional
        Replaces that of the process: ``RPMEM_SSH``, ``RPMEM_CMD`` (every start over ssh takes the
        next command, whatever its purpose), ``RPMEM_LAUNCHER`` and ``RPMEM_TIMEOUT``.
    launcher : str
        ``"openssh"``, ``"paramiko"``, or ``"auto"``: the one in ``RPMEM_LAUNCHER``, else openssh if
        ``RPMEM_SSH`` is set or there is an ssh program, and paramiko otherwise.
    command : str, optional
        A shell command to use instead of the next one from ``RPMEM_CMD``.
    timeout_s : float, optional
        Seconds for paramiko to connect, log in and start the command, and the longest wait of
        `Transport.send`; by default ``RPMEM_TIMEOUT``.
    ipv4_only : bool
        As ``ssh -4``: PMDK's ``sockets`` provider supports no other addresses.

    Returns
    -------
    Transport
        With openssh and local targets this returns immediately: whether rpmemd has started shows in
        the status word, and if none comes, `diagnose` explains why.

    Raises
    ------
    LaunchError
        rpmemd could not be started, as far as is known by now; the kind of error says why.
    DeadlineExceeded
        paramiko did not finish in time.
    UsageError
        There is no such launcher.
    """
    try:
        return _launch(
            target, arguments, environment, launcher, command, timeout_s, ipv4_only=ipv4_only
        )
    except (OSError, RuntimeError, MemoryError) as error:
        number = shortage(error)
        if isinstance(error, RpmemError) or number is None:
            raise
        raise LaunchFailed(
            f"rpmemd cannot be started: {os.strerror(number)}",
            where=str(target),
            hint=remedy_for(number),
            errno=number,
        ) from error


def _launch(
    target: Target,
    arguments: Sequence[str],
    environment: Environment | None,
    launcher: str,
    command: str | None,
    timeout_s: float | None,
    *,
    ipv4_only: bool,
) -> Transport:
    if launcher not in LAUNCHERS:
        raise UsageError(
            f"there is no launcher {launcher!r}", hint=f"Launchers are {', '.join(LAUNCHERS)}"
        )
    if environment is None:
        environment = variables.current()
    seconds = environment.timeout_s if timeout_s is None else variables.timeout_of(timeout_s)
    if target.is_local:
        from rpmem.launch import local

        return local.start(target, arguments, command=command, timeout_s=seconds)
    if command is None:
        command = environment.next_command()
    line = " ".join((command, shlex.join(arguments))).rstrip()
    chosen = _choose(environment.launcher if launcher == "auto" else launcher, environment)
    if chosen == "openssh":
        from rpmem.launch import openssh

        return openssh.start(environment.ssh, target, line, timeout_s=seconds, ipv4_only=ipv4_only)
    try:
        from rpmem.launch import in_process
    except ImportError as error:
        raise LaunchFailed(
            f"paramiko cannot be imported: {error}",
            hint="Install it with: pip install paramiko; or install ssh (Debian: openssh-client)",
        ) from error
    return in_process.start(target, line, timeout_s=seconds, ipv4_only=ipv4_only)


def _choose(launcher: str, environment: Environment) -> str:
    if launcher != "auto":
        return launcher
    # A program that was asked for is never replaced by paramiko: its absence is an error.
    if environment.ssh_is_set or shutil.which(environment.ssh):
        return "openssh"
    return "paramiko"
