"""Logging in with public keys: configured files, the agent, and ssh's default files."""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import paramiko

from rpmem.base import interrupts
from rpmem.base.printable import printable
from rpmem.base.target import Target
from rpmem.errors import RpmemError
from rpmem.launch.base import Deadline
from rpmem.launch.client_config import ClientConfig
from rpmem.launch.diagnose import authentication_failed

_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")

_T = TypeVar("_T")


class Login:
    """Offers keys to a server, in a certain order.

    Parameters
    ----------
    session : paramiko.Transport
        After negotiation, with a checked host key.
    target : Target
        For messages.
    config : ClientConfig
        The settings of ssh_config for it.
    deadline : Deadline
        For the whole login.
    """

    def __init__(
        self,
        session: paramiko.Transport,
        target: Target,
        config: ClientConfig,
        deadline: Deadline,
    ) -> None:
        self._session = session
        self._target = target
        self._config = config
        self._deadline = deadline
        self._user = config.user or getpass.getuser()
        self._offered: list[str] = []
        self._unusable: list[str] = []
        self._agent: paramiko.Agent | None = None

    def run(self) -> None:
        """Log in, or raise `AuthenticationFailed`."""
        try:
            for label, key in self._keys():
                self._offered.append(label)
                if self._offer(key):
                    return
        finally:
            if self._agent is not None:
                self._agent.close()
        raise self._failed(f"permission denied for user {self._user}")

    def _offer(self, key: paramiko.PKey) -> bool:
        self._session.auth_timeout = self._deadline.left()
        try:
            more = self._session.auth_publickey(self._user, key)
        except paramiko.BadAuthenticationType as error:
            allowed = ", ".join(error.allowed_types)
            raise self._failed(f"user {self._user} may log in only by {allowed}") from error
        except paramiko.AuthenticationException as error:
            if not self._session.is_active():
                raise self._failed(f"the server hung up on user {self._user}: {error}") from error
            return False
        if more:
            raise self._failed(f"user {self._user} also needs {', '.join(more)}")
        return True

    def _failed(self, why: str) -> RpmemError:
        offered = "; ".join(self._offered) or "none: there is no usable key"
        words = f"{why} (offered: {offered}"
        if self._unusable:
            words += f"; not usable: {'; '.join(self._unusable)}"
        return authentication_failed(self._target, words + ")")

    def _keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        configured = self._config.identity_files
        yield from self._from_files(configured)
        yield from self._from_agent()
        if not configured:
            directory = Path("~/.ssh").expanduser()
            yield from self._from_files([directory / name for name in _DEFAULT_KEYS])

    def _from_files(self, paths: Sequence[Path]) -> Iterator[tuple[str, paramiko.PKey]]:
        for path in paths:
            if not path.exists():
                continue
            try:
                key = _load_key(path)
            except paramiko.PasswordRequiredException:
                self._unusable.append(f"{path}: it needs a passphrase")
            except Exception as error:  # errors in key files have no common base
                self._unusable.append(f"{path}: {printable(str(error), 80)}")
            else:
                yield str(path), key

    def _from_agent(self) -> Iterator[tuple[str, paramiko.PKey]]:
        if not self._config.use_agent or not os.environ.get("SSH_AUTH_SOCK"):
            return
        try:
            self._agent = bounded(paramiko.Agent, self._deadline)
        except (paramiko.SSHException, OSError) as error:
            self._unusable.append(f"ssh-agent: {printable(str(error), 80)}")
            return
        wanted = self._public_halves() if self._config.identities_only else None
        for key in self._agent.get_keys():
            if wanted is None or key.asbytes() in wanted:
                yield f"ssh-agent's {key.comment or key.get_name()}", key

    def _public_halves(self) -> set[bytes]:
        """Return the public keys next to the identity files, which select keys of the agent."""
        found = set()
        for path in self._config.identity_files:
            public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
            with contextlib.suppress(OSError, ValueError, IndexError):
                found.add(base64.b64decode(public.read_text(encoding="utf-8").split()[1]))
        return found


def _load_key(path: Path) -> paramiko.PKey:
    """Read a private key of any kind, and the certificate next to it if there is one."""
    problem: Exception | None = None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key = kind.from_private_key_file(str(path))
        except paramiko.PasswordRequiredException:
            raise
        except paramiko.SSHException as error:
            problem = problem or error
            continue
        certificate = path.with_name(path.name + "-cert.pub")
        if certificate.exists():
            key.load_certificate(str(certificate))
        return key
    raise problem or paramiko.SSHException("no private key")


def bounded(call: Callable[[], _T], deadline: Deadline) -> _T:
    """Return the result of a call that has no time limit itself.

    Parameters
    ----------
    call : callable
        Runs in a thread, which is abandoned if it is late.
    deadline : Deadline
        When to stop waiting.

    Returns
    -------
    object
        The result of `call`. Its exceptions are passed on.

    Raises
    ------
    TimeoutError
        It took too long.
    """
    done: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((True, call()))
        except BaseException as error:
            done.put((False, error))

    threading.Thread(target=run, name="rpmem launch", daemon=True).start()
    while True:
        try:
            good, result = done.get(timeout=deadline.left(interrupts.slice_s()))
            break
        except queue.Empty:
            interrupts.check()
            if deadline.passed:
                raise TimeoutError from None
    if not good:
        raise result
    return result  # type: ignore[no-any-return]
