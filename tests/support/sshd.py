"""A real OpenSSH server for tests, on the loopback interface, with its own keys and settings.

Host keys, user key, known_hosts, ssh_config, home directory and PATH of the sessions are in one
temporary directory; the user's ``~/.ssh`` and shell start-up files are neither read nor written. It
works as an ordinary user and as root in a container.

    with Sshd(directory) as sshd:
        sshd.install_rpmemd()
        subprocess.run([sshd.ssh, "node2", "true"])     # a wrapper script, suitable for $RPMEM_SSH
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]

#: The name under which the client's configuration knows the server.
NODE = "node2"
ADDRESS = "127.0.0.1"

#: Name of the file with the server's process number.
PID_FILE = "sshd.pid"

_PRIVILEGE_SEPARATION = Path("/run/sshd")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 5.0
_PORT_ATTEMPTS = 5


class SshdAbsent(Exception):
    """There can be no ssh server here; the text says why."""


class Sshd:
    """One server and what a client needs to use it.

    Parameters
    ----------
    directory : Path
        Empty or to be made; kept.
    address : str
        Where it listens.
    within : sequence of str
        A command that runs the server somewhere else, such as ``ip netns exec NAME``.

    Attributes
    ----------
    port : int
        Chosen by the system.
    user : str
        Who can log in: the user that runs the tests.
    ssh : Path
        Script that runs ssh with the client configuration here; its name is ``ssh``.
    home : Path
        HOME of the sessions, and a HOME for clients that read ``~/.ssh/config``, as paramiko
        does. The sessions' shell reads its ``.bashrc``.
    bin : Path
        First directory of the sessions' PATH.
    pid_file : Path
        Has the server's process number; in the directory of `ssh`.
    """

    def __init__(
        self, directory: Path, *, address: str = ADDRESS, within: Sequence[str] = ()
    ) -> None:
        self.directory = directory.resolve()
        self.address = address
        self._within = list(within)
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.port = 0
        self.home = self.directory / "home"
        self.bin = self.directory / "bin"
        self.ssh = self.directory / "ssh"
        self.identity = self.directory / "user_key"
        self.host_key = self.directory / "host_key"
        self.known_hosts = self.directory / "known_hosts"
        self.log = self.directory / "sshd.log"
        self.pid_file = self.directory / PID_FILE
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the server; SshdAbsent when that is not possible on this machine."""
        programs = [_program(name) for name in ("sshd", "ssh", "ssh-keygen")]
        if os.getuid() == 0:
            try:
                pwd.getpwnam("sshd")
                _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
            except (KeyError, OSError) as error:
                raise SshdAbsent(f"sshd cannot separate its privileges: {error}") from error
        for directory in (self.directory, self.bin, self.home, self.home / ".ssh"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for key in (self.host_key, self.identity):
            make_key(key)
        shutil.copy(self.identity.with_suffix(".pub"), self.directory / "authorized_keys")
        for _ in range(_PORT_ATTEMPTS):
            self.port = free_port()
            if self._serve(programs[0]):
                break
        else:
            raise SshdAbsent(f"sshd does not start: {self.log.read_text()[-500:]}")
        self.write_known_hosts(self.known_hosts, self.host_key)
        self.ssh = self.client()
        shutil.copy(self.directory / "ssh_config", self.home / ".ssh" / "config")
        check = self.run("true")
        if check.returncode:
            self.stop()
            raise SshdAbsent(f"cannot log in to the sshd of the tests: {check.stderr.strip()}")
        return self

    def stop(self) -> None:
        """End the server and every session that is still there."""
        if self._process is None:
            return
        sessions = _descendants(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT)
        for process, started in sessions:
            if _started(process) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- the server's side ---------------------------------------------------------------------

    def install(self, name: str, script: str) -> Path:
        """Put a shell script on the sessions' PATH and return where it is."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def install_rpmemd(self, name: str = "rpmemd", *, options: str = "") -> Path:
        """Put the rpmemd of this source tree on the sessions' PATH."""
        return self.install(
            name,
            f"export PYTHONPATH={shlex.quote(str(ROOT))}\n"
            f'exec {shlex.quote(sys.executable)} -P -m rpmemd {options} "$@"',
        )

    def set_bashrc(self, text: str) -> None:
        """Give the sessions' shell a ``.bashrc``; empty text takes it away."""
        (self.home / ".bashrc").write_text(text)

    def _serve(self, program: str) -> bool:
        lines = [
            f"Port {self.port}",
            f"ListenAddress {self.address}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.directory / 'authorized_keys'}",
            "StrictModes no",  # the directory may lie below one that anybody can write to
            "PidFile none",
            "UsePAM no",
            "UseDNS no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PrintMotd no",
            "PrintLastLog no",
            "MaxStartups 200",
            "MaxSessions 200",
            "LoginGraceTime 30",
            "LogLevel VERBOSE",
            f"SetEnv HOME={self.home} PATH={self.bin}:{_SYSTEM_PATH}",
        ]
        # Newer servers shut out addresses that fail to log in, as tests do on purpose; older
        # ones do not know the option.
        config = self.directory / "sshd_config"
        for more in (["PerSourcePenalties no"], []):
            config.write_text("\n".join(lines + more) + "\n")
            check = subprocess.run([program, "-t", "-f", config], capture_output=True, text=True)
            if check.returncode == 0:
                break
        else:
            raise SshdAbsent(f"sshd refuses its configuration: {check.stderr.strip()}")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._within, program, "-D", "-e", "-f", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid_file.write_text(str(self._process.pid))
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((self.address, self.port), 5.0) as probe,
            ):
                if probe.recv(4) == b"SSH-":
                    return True
            time.sleep(0.02)
        self.stop()
        return False

    # --- the client's side ---------------------------------------------------------------------

    def client(
        self,
        name: str = "ssh",
        *,
        known_hosts: Path | None = None,
        identity: Path | None = None,
        more: str = "",
    ) -> Path:
        """Write a client configuration and a script NAME that runs ssh with it.

        For clients that read ``~/.ssh/config`` it is also in the home directory ``NAME_home``.

        Parameters
        ----------
        name : str
            Of the script, which is fit for ``$RPMEM_SSH``.
        known_hosts, identity : Path, optional
            Instead of the good ones.
        more : str
            Lines of ssh_config(5) that come before all others.

        Returns
        -------
        Path
            The script.
        """
        config = self.directory / f"{name}_config"
        config.write_text(
            f"{more}\n"
            f"Host {NODE}\n"
            f"  HostName {self.address}\n"
            f"  Port {self.port}\n"
            "Host *\n"
            f"  User {self.user}\n"
            f"  IdentityFile {identity or self.identity}\n"
            "  IdentitiesOnly yes\n"
            "  IdentityAgent none\n"
            f"  UserKnownHostsFile {known_hosts or self.known_hosts}\n"
            "  GlobalKnownHostsFile /dev/null\n"
        )
        home = self.directory / f"{name}_home" / ".ssh"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(config, home / "config")
        script = self.directory / name
        ssh = shlex.quote(_program("ssh"))
        script.write_text(f'#!/bin/sh\nexec {ssh} -F {shlex.quote(str(config))} "$@"\n')
        script.chmod(0o755)
        return script

    def write_known_hosts(self, path: Path, key: Path) -> Path:
        """Write a known_hosts file that says that `key` is the server's."""
        kind, blob, *_ = key.with_suffix(".pub").read_text().split()
        path.write_text(f"[{self.address}]:{self.port} {kind} {blob}\n")
        return path

    def run(self, command: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command over ssh and return what came of it."""
        return subprocess.run(
            [self.ssh, "-oBatchMode=yes", NODE, command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair and return the private half's path."""
    if not path.exists():
        subprocess.run(
            [_program("ssh-keygen"), "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", path],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    return path


def free_port() -> int:
    """Return a port on which nothing listens, for now."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    if path is None:
        raise SshdAbsent(f"no {name} on this machine (Debian: openssh-server, openssh-client)")
    return path


def _descendants(process: int) -> list[tuple[int, str]]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                # After the name in parentheses: state, parent.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found = []
    for candidate in parents:
        parent: int | None = candidate
        while (parent := parents.get(parent or 0)) is not None:
            if parent == process:
                found.append((candidate, _started(candidate)))
                break
    return found


def _started(process: int) -> str:
    """Return what tells a process from a later one with its number."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
