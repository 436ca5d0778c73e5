"""rpmemd over the system's ssh, which knows ssh_config, agents, jump hosts and certificates.

The argument list is librpmem's, to the letter: ``$RPMEM_SSH`` is one program, found by PATH, and
may be a wrapper that counts its arguments.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess

from rpmem.launch.child import ChildTransport
from rpmem.target import Target

_RESOLVE_TIMEOUT = 5.0


class OpensshTransport(ChildTransport):
    """An ssh process and, behind it, rpmemd."""

    launcher = "openssh"
    absent_hint = (
        "Install ssh (Debian: openssh-client), name another program with RPMEM_SSH, "
        "or do without: RPMEM_LAUNCHER=paramiko"
    )

    @functools.cached_property
    def peer_host(self) -> str:  # noqa: D102 - see Transport
        return resolve_host(self.argv[0], self.target)


def arguments_for(
    program: str, target: Target, command: str, *, ipv4_only: bool = False
) -> list[str]:
    """Return the argument list that runs `command` on a target.

    Parameters
    ----------
    program : str
        The ssh program.
    target : Target
        Not a local one.
    command : str
        One string, for the login shell.
    ipv4_only : bool
        Add ``-4``, as librpmem does for the ``sockets`` provider.

    Returns
    -------
    list of str
        ``PROGRAM [-p PORT] -T [-4] -oBatchMode=yes [USER@]HOST COMMAND``.
    """
    return [
        program,
        *_port(target),
        "-T",
        *(["-4"] if ipv4_only else []),
        "-oBatchMode=yes",
        target.ssh_destination,
        command,
    ]


def resolve_host(program: str, target: Target) -> str:
    """Return the host name that ssh connects to for a target.

    Parameters
    ----------
    program : str
        The ssh program. A wrapper that is not called ``ssh`` is not asked: it might start
        rpmemd whatever its arguments are.
    target : Target
        Not a local one.

    Returns
    -------
    str
        HostName of ssh_config, or the target's own host when ssh does not tell.
    """
    if os.path.basename(program) != "ssh":
        return target.host
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            [program, "-G", *_port(target), target.ssh_destination],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=_RESOLVE_TIMEOUT,
            check=True,
        )
        for line in answer.stdout.decode("utf-8", "replace").splitlines():
            keyword, _, value = line.partition(" ")
            if keyword == "hostname" and value:
                return value
    return target.host


def start(
    program: str, target: Target, command: str, *, timeout: float, ipv4_only: bool = False
) -> OpensshTransport:
    """Start ssh.

    Parameters
    ----------
    program : str
        The ssh program.
    target : Target
        Not a local one.
    command : str
        For the login shell.
    timeout : float
        Longest wait of calls that are not told another one.
    ipv4_only : bool
        As ``ssh -4``.

    Returns
    -------
    OpensshTransport
        At once: what becomes of the connection shows in what is received.

    Raises
    ------
    LaunchFailed
        There is no such program.
    """
    return OpensshTransport(
        arguments_for(program, target, command, ipv4_only=ipv4_only),
        target=target,
        command=command,
        timeout=timeout,
    )


def _port(target: Target) -> list[str]:
    return [] if target.port is None else ["-p", str(target.port)]
