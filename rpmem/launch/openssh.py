"""rpmemd over the system's ssh, which supports ssh_config, agents, jump hosts and certificates.

``$RPMEM_SSH`` is a program found by PATH, or a command with arguments; it may be a wrapper that
counts its own. The argument list is exactly librpmem's, unless ssh_config has a setting that
prevents communication with a command: ssh is queried, and the setting overridden for this one call.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence

from rpmem.base import interrupts
from rpmem.base.printable import printable
from rpmem.base.target import Target
from rpmem.errors import LaunchFailed
from rpmem.launch.base import Deadline
from rpmem.launch.child import ChildTransport

_RESOLVE_TIMEOUT_S = 5.0
_ESTABLISHED = "01"

# Settings that leave rpmemd without its input, or ssh without rpmemd: the name in `ssh -G`, its
# harmless values, and the option for the command line.
_OVERRIDDEN = (
    ("stdinnull", "no", "StdinNull=no"),
    ("sessiontype", "default", "SessionType=default"),
    ("forkafterauthentication", "no", "ForkAfterAuthentication=no"),
    ("remotecommand", "none", "RemoteCommand=none"),
)


class OpensshTransport(ChildTransport):
    """An ssh process that runs rpmemd."""

    launcher = "openssh"
    absent_hint = (
        "Install ssh (Debian: openssh-client), name another program with RPMEM_SSH, "
        "or use paramiko: RPMEM_LAUNCHER=paramiko"
    )

    def __init__(
        self,
        argv: Sequence[str],
        *,
        target: Target,
        command: str,
        timeout_s: float,
        words: Sequence[str],
        settings: Mapping[str, str] | None,
    ) -> None:
        self._words = tuple(words)
        self._settings = settings
        super().__init__(argv, target=target, command=command, timeout_s=timeout_s)

    @property
    def peer_host(self) -> str:  # noqa: D102 - see Transport
        return (self._settings or {}).get("hostname") or self.target.host

    def session_hosts(self) -> set[str]:  # noqa: D102 - see Transport
        # With a jump host or a shared connection, this process has no connection itself.
        hosts = peers_of(self.pid) or {self.settings().get("hostname", "")}
        return {self.peer_host, *hosts} - {""}

    def settings(self) -> Mapping[str, str]:  # noqa: D102 - see Transport
        if self._settings is None:
            # A wrapper was not queried before, as it might start rpmemd; now that is harmless.
            self._settings = settings_of(self._words, self.target)
        return self._settings


def words_of(program: str) -> list[str]:
    """Return the words of ``$RPMEM_SSH``: one, if a program has that whole name.

    Raises
    ------
    LaunchFailed
        There is no such program, and the words cannot be split.
    """
    if shutil.which(program) is not None:
        return [program]
    try:
        return shlex.split(program) or [program]
    except ValueError as error:
        raise LaunchFailed(
            f"RPMEM_SSH is '{printable(program, 200)}', which is neither a program nor a command: "
            f"{error}",
            hint=OpensshTransport.absent_hint,
        ) from error


def arguments_for(
    words: Sequence[str],
    target: Target,
    command: str,
    *,
    ipv4_only: bool = False,
    settings: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the argument list that runs `command` on a target.

    Parameters
    ----------
    words : sequence of str
        The ssh program and its first arguments.
    target : Target
        Not a local one.
    command : str
        One string, for the login shell.
    ipv4_only : bool
        Add ``-4``, as librpmem does for the ``sockets`` provider.
    settings : mapping, optional
        The result of `settings_of`; settings that would interfere are overridden.

    Returns
    -------
    list of str
        ``WORDS [-p PORT] -T [-4] -oBatchMode=yes [-oOPTION=VALUE ...] [USER@]HOST COMMAND``.
    """
    return [
        *words,
        *_port(target),
        "-T",
        *(["-4"] if ipv4_only else []),
        "-oBatchMode=yes",
        *(
            f"-o{option}"
            for name, harmless, option in _OVERRIDDEN
            if (settings or {}).get(name, harmless) != harmless
        ),
        target.ssh_destination,
        command,
    ]


def settings_of(words: Sequence[str], target: Target) -> dict[str, str]:
    """Return the settings for a target, as printed by ``ssh -G``; {} if that fails.

    Parameters
    ----------
    words : sequence of str
        The ssh program and its first arguments.
    target : Target
        Not a local one.
    """
    try:
        return _ask([*words, "-G", *_port(target), target.ssh_destination])
    except subprocess.CalledProcessError:
        # Without a command to run, ssh refuses to fork even if it is only queried.
        fork = "ForkAfterAuthentication"
        again = [*words, "-G", f"-o{fork}=no", *_port(target), target.ssh_destination]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return _ask(again) | {fork.lower(): "yes"}
    except (OSError, subprocess.SubprocessError):
        return {}  # the start itself will show what is wrong
    return {}


def _ask(argv: Sequence[str]) -> dict[str, str]:
    asked = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = Deadline(_RESOLVE_TIMEOUT_S)
    try:
        while True:
            # ssh_config can make it run commands (`Match exec`), which may take any time.
            with contextlib.suppress(subprocess.TimeoutExpired):
                answer, _ = asked.communicate(timeout=deadline.left(interrupts.slice_s()))
                break
            interrupts.check()
            if deadline.passed:
                raise subprocess.TimeoutExpired(argv, _RESOLVE_TIMEOUT_S)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(asked.pid, signal.SIGKILL)
        asked.communicate()
        raise
    if asked.returncode:
        raise subprocess.CalledProcessError(asked.returncode, argv)
    found: dict[str, str] = {}
    for line in answer.decode("utf-8", "replace").splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, value)
    return found


def peers_of(process: int) -> set[str]:
    """Return the peer addresses of a process's TCP connections, as far as visible."""
    try:
        numbers = os.listdir(f"/proc/{process}/fd")
    except OSError:
        return set()
    inodes = set()
    for number in numbers:
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/{process}/fd/{number}"))
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            with open(f"/proc/{process}/net/{table}", encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        for row in rows:
            if row[3] == _ESTABLISHED and f"socket:[{row[9]}]" in inodes:
                raw = bytes.fromhex(row[2].partition(":")[0])
                # The kernel prints words of 32 bits in the machine's order.
                words = struct.unpack(f">{len(raw) // 4}I", raw)
                found.add(socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)))
    return found


def start(
    program: str, target: Target, command: str, *, timeout_s: float, ipv4_only: bool = False
) -> OpensshTransport:
    """Start ssh.

    Parameters
    ----------
    program : str
        The ssh program, or a command with arguments.
    target : Target
        Not a local one.
    command : str
        For the login shell.
    timeout_s : float
        Longest wait of calls without a limit of their own.
    ipv4_only : bool
        As ``ssh -4``.

    Returns
    -------
    OpensshTransport
        Returned immediately: errors of the connection show when receiving.

    Raises
    ------
    LaunchFailed
        There is no such program.
    """
    words = words_of(program)
    # A wrapper that is not called ssh is not queried: it might start rpmemd regardless of
    # arguments.
    asked = os.path.basename(words[0]) == "ssh"
    settings = settings_of(words, target) if asked else None
    return OpensshTransport(
        arguments_for(words, target, command, ipv4_only=ipv4_only, settings=settings),
        target=target,
        command=command,
        timeout_s=timeout_s,
        words=words,
        settings=settings,
    )


def _port(target: Target) -> list[str]:
    return [] if target.port is None else ["-p", str(target.port)]
