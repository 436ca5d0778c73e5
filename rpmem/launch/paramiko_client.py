"""An authenticated ssh connection made by paramiko, as strict and silent as ``BatchMode=yes``.

Unknown host keys are rejected, there are no prompts, and one deadline covers everything from the
name service to the last signature.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import threading
from typing import Any, Self, TypeVar

import paramiko

from rpmem.base import interrupts
from rpmem.base.printable import printable
from rpmem.base.target import Target
from rpmem.errors import LaunchFailed, RpmemError
from rpmem.launch.base import Deadline
from rpmem.launch.client_config import ClientConfig
from rpmem.launch.diagnose import (
    connection_refused,
    host_key_changed,
    host_key_unknown,
    host_unknown,
    no_answer,
)
from rpmem.launch.known_hosts import KnownHosts
from rpmem.launch.login import Login, bounded

_LOG = "rpmem.launch.paramiko"
# paramiko also logs tracebacks of exceptions it raises; without a handler they are printed.
logging.getLogger(_LOG).addHandler(logging.NullHandler())

_ALIAS_PORT = 22  # a HostKeyAlias is looked up without a port
_MOST_HOPS = 8
# Seconds for the program of a ProxyCommand to end by itself.
_HELPER_GRACE_S = 1.0
_CONNECT_FAILED = 2  # SSH_OPEN_CONNECT_FAILED, RFC 4254
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

_T = TypeVar("_T")


class Connection:
    """A connection to a target, through the jump hosts in ssh_config.

    Parameters
    ----------
    target : Target
        Not a local one.
    deadline : Deadline
        For everything up to and including authentication, and for the caller's own steps until
        `established` is called.
    ipv4_only : bool
        As ``ssh -4``.

    Raises
    ------
    HostUnknown, ConnectionRefused, HostKeyUnknown, AuthenticationFailed, LaunchFailed
        As the names say.
    DeadlineExceeded
        It did not finish in time.
    """

    def __init__(self, target: Target, deadline: Deadline, *, ipv4_only: bool = False) -> None:
        self._target = target
        self._deadline = deadline
        self._ipv4_only = ipv4_only
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._sessions: list[paramiko.Transport] = []
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._aborted = False
        self._doing = "connecting"
        # Not every wait inside paramiko has a limit; closing the connection ends them all.
        self._watchdog = threading.Timer(deadline.left() or 0, self.abort)
        self._watchdog.daemon = True
        if deadline.seconds is not None:
            self._watchdog.start()
        try:
            self.config = ClientConfig.lookup(target)
            with interrupts.broken_by(self.abort):
                self.session = self._log_in(target, self.config, None, 0)
        except BaseException as error:
            self.close()
            interrupts.check()
            shown = self.explained(error)
            if shown is error:
                raise
            raise shown from error

    def established(self) -> None:
        """Lift the deadline, as the connection is to last."""
        self._watchdog.cancel()
        if self._aborted:
            raise self._late()

    def explained(self, error: BaseException) -> BaseException:
        """Return the error for the user that replaces a low-level one."""
        if (self._aborted or self._deadline.passed) and isinstance(error, Exception):
            return self._late()
        if isinstance(error, RpmemError) or not isinstance(error, Exception):
            return error
        if isinstance(error, (paramiko.SSHException, EOFError, OSError)):
            words = str(error) or type(error).__name__
            return LaunchFailed(
                f"{self._target.host} broke off while {self._doing}: '{printable(words)}'",
                hint=f"Check that an ssh server answers on that port of {self._target.host}",
            )
        return error

    def now(self, doing: str) -> None:
        """Record the current activity, for the error if it takes too long."""
        self._doing = doing

    def addresses(self) -> set[str]:
        """Return the addresses of the connection; those behind jump hosts are unknown."""
        if len(self._sessions) != 1:
            return set()
        with self._lock, contextlib.suppress(OSError, ValueError):
            return {
                str(connected.getpeername()[0])
                for connected in self._sockets
                if connected.family in (socket.AF_INET, socket.AF_INET6)
            }
        return set()

    def abort(self) -> None:
        """Break the connection immediately; may be called from any thread."""
        self._aborted = True
        self._end()

    def close(self) -> None:
        """Release everything."""
        self._watchdog.cancel()
        self._end()
        deadline = Deadline(_HELPER_GRACE_S)
        for session in self._sessions:
            if session.is_alive():
                session.join(deadline.left())
            # A login that is aborted in its first steps leaves behind the timer that watched them.
            session.packetizer.complete_handshake()
        for helper in self._helpers:
            try:
                helper.wait(deadline.left())
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(helper.pid, signal.SIGKILL)
                helper.wait()

    def drop(self) -> None:
        """Close only the descriptors, in a forked copy."""
        for connected in self._sockets:
            connected.close()

    def _end(self) -> None:
        with self._lock:
            for session in reversed(self._sessions):
                session.close()
            for connected in self._sockets:
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)
                connected.close()
            for helper in self._helpers:
                helper.terminate()

    def _late(self) -> RpmemError:
        return no_answer(self._target, self._deadline.seconds, doing=self._doing)

    def _keep(self, things: list[_T], thing: _T) -> _T:
        with self._lock:
            things.append(thing)
        if self._aborted:  # after the last check: otherwise it would not be ended
            self._end()
            raise self._late()
        return thing

    # --- one hop -----------------------------------------------------------------------------

    def _log_in(
        self, target: Target, config: ClientConfig, via: paramiko.Transport | None, depth: int
    ) -> paramiko.Transport:
        if depth > _MOST_HOPS:
            raise LaunchFailed(f"more than {_MOST_HOPS} jump hosts lead to {self._target.host}")
        if via is None and config.proxy_jump is not None:
            for hop in config.proxy_jump.split(","):
                step = Target.parse(hop.strip().removeprefix("ssh://"))
                via = self._log_in(step, ClientConfig.lookup(step), via, depth + 1)
        self.now(f"connecting to {target.host}")
        if via is not None:
            stream: Any = self._through(via, target, config)
        elif config.proxy_command is not None:
            stream = self._proxy(config.proxy_command)
        else:
            stream = self._tcp(target, config)
        self.now(f"negotiating with {target.host}")
        session = self._keep(self._sessions, paramiko.Transport(stream))
        session.set_log_channel(_LOG)
        session.daemon = True
        left = self._deadline.left()
        if left is not None:
            session.banner_timeout = session.handshake_timeout = left
        self._check_host_key(session, target, config)
        self.now(f"logging in to {target.host}")
        Login(session, target, config, self._deadline).run()
        if config.alive_interval > 0:
            session.set_keepalive(config.alive_interval)
        return session

    def _tcp(self, target: Target, config: ClientConfig) -> socket.socket:
        family = socket.AF_INET if self._ipv4_only else _FAMILIES.get(config.address_family, 0)
        try:
            found = bounded(
                lambda: socket.getaddrinfo(
                    config.hostname, config.port, family, socket.SOCK_STREAM
                ),
                self._deadline,
            )
        except socket.gaierror as error:
            raise host_unknown(target, str(error.strerror)) from error
        problem: OSError = OSError("no address")
        for kind, _, protocol, _, address in found:
            # Recorded immediately, so that an interrupt can also break off connecting.
            connected = self._keep(self._sockets, socket.socket(kind, socket.SOCK_STREAM, protocol))
            try:
                connected.settimeout(self._deadline.left(config.connect_timeout))
                connected.connect(address)
            except OSError as error:
                connected.close()
                problem = error
                continue
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
        words = f"{problem.strerror or problem} (port {config.port})"
        if isinstance(problem, ConnectionRefusedError):
            raise connection_refused(target, words) from problem
        if isinstance(problem, TimeoutError):
            limit = config.connect_timeout or self._deadline.seconds
            raise no_answer(target, limit, doing=self._doing) from problem
        raise host_unknown(target, words) from problem

    def _proxy(self, command: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._keep(self._sockets, ours)
        with theirs:
            # As in ssh; Target has checked the host and user names in it.
            self._keep(
                self._helpers,
                subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {command}"],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                ),
            )
        return ours

    def _through(
        self, via: paramiko.Transport, target: Target, config: ClientConfig
    ) -> paramiko.Channel:
        with _Overheard(via) as words:
            try:
                return via.open_channel(
                    "direct-tcpip",
                    (config.hostname, config.port),
                    ("127.0.0.1", 0),
                    timeout=self._deadline.left(),
                )
            except paramiko.ChannelException as error:
                said = f"the jump host says: {words.reason or error.text} (port {config.port})"
                if "refused" in words.reason:
                    raise connection_refused(target, said) from error
                if error.code == _CONNECT_FAILED:
                    raise host_unknown(target, said) from error
                raise LaunchFailed(f"{target.host} cannot be reached: {said}") from error

    def _check_host_key(
        self, session: paramiko.Transport, target: Target, config: ClientConfig
    ) -> None:
        known = KnownHosts(config.known_hosts)
        name = config.host_key_alias or config.hostname
        port = _ALIAS_PORT if config.host_key_alias else config.port
        kinds = known.kinds(name, port)
        options = session.get_security_options()
        # The server presents one key: ask for types of which there are known ones.
        options.key_types = sorted(
            options.key_types,
            key=lambda kind: ("ssh-rsa" if kind.startswith("rsa-") else kind) not in kinds,
        )
        session.start_client(timeout=self._deadline.left())
        if self._deadline.passed:
            raise self._late()
        key = session.get_remote_server_key()
        verdict, source = known.check(name, port, key.get_name(), key.asbytes())
        if verdict == "known":
            return
        shown = f"{key.get_name()} {key.fingerprint}"
        at = name if port == _ALIAS_PORT else f"[{name}]:{port}"
        if verdict == "unknown":
            raise host_key_unknown(target, f"no key is known for {at}, it shows {shown}")
        words = "differs from" if verdict == "changed" else "is revoked by"
        raise host_key_changed(target, f"{at} shows {shown}, which {words} {source}")


class _Overheard(logging.Handler):
    """Captures the reason why a channel was not opened, which paramiko logs but does not raise.

    If the program suppresses errors in its logs, as the command does, they meanwhile reach this
    handler and no other.
    """

    _lock = threading.Lock()
    _listening = 0
    _before: tuple[int, bool] | None = None

    def __init__(self, session: paramiko.Transport) -> None:
        super().__init__(logging.ERROR)
        self._session = session
        self.reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"open FAILED: (.*?):", record.getMessage())
        if found and record.thread == self._session.ident:
            self.reason = found[1]

    def __enter__(self) -> Self:
        log = logging.getLogger(_LOG)
        with self._lock:
            _Overheard._listening += 1
            if not log.isEnabledFor(logging.ERROR):
                _Overheard._before = log.level, log.propagate
                log.setLevel(logging.ERROR)
                log.propagate = False
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        log = logging.getLogger(_LOG)
        log.removeHandler(self)
        with self._lock:
            _Overheard._listening -= 1
            if not self._listening and self._before is not None:
                level, log.propagate = self._before
                log.setLevel(level)
                _Overheard._before = None
