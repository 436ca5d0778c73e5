"""The settings of ssh_config(5) for a host, for the launcher that does not run ssh.

paramiko reads the files; ``Include``, which it ignores, is resolved first.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpmem.base.printable import printable
from rpmem.base.target import Target
from rpmem.errors import LaunchFailed

_DEFAULT_PORT = 22
_DEEPEST_INCLUDE = 16
_SYSTEM_DIRECTORY = Path("/etc/ssh")
_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_KEYWORD = re.compile(r"\s*(?P<keyword>\w+)(?:\s*=\s*|\s+)(?P<value>.*\S)\s*")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The options for one host that the paramiko launcher honours.

    Parameters
    ----------
    alias : str
        The name the user gave.
    hostname, port, user
        Where and as which user to connect; user None: the one this process runs as.
    identity_files : tuple of Path
        As configured, whether they exist or not; empty: none configured.
    identities_only, use_agent : bool
        Which keys of the agent may be offered.
    known_hosts : tuple of Path
        The user's and the system's files.
    host_key_alias : str or None
        Name under which to look up host keys.
    proxy_command, proxy_jump : str or None
        How to get there, if not directly; at most one is set.
    address_family : str
        ``any``, ``inet`` or ``inet6``.
    alive_interval : int
        Seconds between keep-alive messages; 0: none.
    connect_timeout : float or None
        Seconds.
    """

    alias: str
    hostname: str
    port: int
    user: str | None
    identity_files: tuple[Path, ...]
    identities_only: bool
    use_agent: bool
    known_hosts: tuple[Path, ...]
    host_key_alias: str | None
    proxy_command: str | None
    proxy_jump: str | None
    address_family: str
    alive_interval: int
    connect_timeout: float | None

    @classmethod
    def lookup(cls, target: Target) -> ClientConfig:
        """Read the user's and the system's files and pick the settings for `target`.

        Parameters
        ----------
        target : Target
            Its user and port take precedence over the files'.

        Returns
        -------
        ClientConfig
            With ssh's defaults for everything not configured.

        Raises
        ------
        LaunchFailed
            The files cannot be understood.
        """
        found = _options(target)
        command, jump = found.get("proxycommand"), found.get("proxyjump")
        if command is not None or (jump or "none").lower() == "none":
            jump = None
        return cls(
            alias=target.host,
            hostname=found.get("hostname", target.host),
            port=_number(found, "port", _DEFAULT_PORT),
            user=found.get("user"),
            identity_files=_files(found.get("identityfile", [])),
            identities_only=found.get("identitiesonly", "no").lower() == "yes",
            use_agent=found.get("identityagent", "").lower() != "none",
            known_hosts=(
                *_files(_words(found.get("userknownhostsfile", _KNOWN_HOSTS))),
                *_files(_words(found.get("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS))),
            ),
            host_key_alias=found.get("hostkeyalias"),
            proxy_command=command,
            proxy_jump=jump,
            address_family=found.get("addressfamily", "any").lower(),
            alive_interval=_number(found, "serveraliveinterval", 0),
            connect_timeout=float(_number(found, "connecttimeout", 0)) or None,
        )


def _options(target: Target) -> dict[str, Any]:
    import paramiko

    user = Path("~/.ssh/config").expanduser()
    # The first value counts, and the target's values come before every file.
    text = "\n".join(
        (
            "" if target.user is None else f"User {target.user}",
            "" if target.port is None else f"Port {target.port}",
            *_with_includes(user, user.parent),
            "Host *",
            *_with_includes(_SYSTEM_DIRECTORY / "ssh_config", _SYSTEM_DIRECTORY),
        )
    )
    try:
        return dict(paramiko.SSHConfig.from_text(text).lookup(target.host))
    except (paramiko.SSHException, ImportError, OSError, ValueError, KeyError) as error:
        raise LaunchFailed(
            f"paramiko does not understand the ssh configuration: {printable(str(error))}",
            hint="Use the system's ssh instead: RPMEM_LAUNCHER=openssh",
        ) from error


def _with_includes(path: Path, directory: Path, depth: int = 0, outer: str = "") -> list[str]:
    """Return the lines of a file, with the files it includes inserted.

    `outer` are the conditions of the block that includes the file: they also apply to its blocks.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    result: list[str] = []
    conditions = outer
    for line in lines:
        match = _KEYWORD.fullmatch(line)
        keyword = match["keyword"].lower() if match else ""
        if match and keyword in ("host", "match"):
            conditions = f"{outer} {_conditions(keyword, match['value'])}".strip()
            result.append(_block(conditions) if outer else line)
        elif match is None or keyword != "include":
            result.append(line)
        elif depth < _DEEPEST_INCLUDE:
            for name in _words(match["value"]):
                for found in sorted(glob.glob(str(directory / os.path.expanduser(name)))):
                    result += _with_includes(Path(found), directory, depth + 1, conditions)
            # Blocks that an included file opens end with it.
            result.append(_block(conditions))
    return result


def _conditions(keyword: str, value: str) -> str:
    if keyword == "host":
        return f"originalhost {','.join(_words(value))}"
    return "" if value.lower() == "all" else value


def _block(conditions: str) -> str:
    return f"Match {conditions}" if conditions else "Host *"


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise LaunchFailed(f"ssh_config: {error}: {printable(value)}") from error


def _files(names: list[str]) -> tuple[Path, ...]:
    return tuple(Path(name).expanduser() for name in names if name.lower() != "none")


def _number(options: dict[str, Any], name: str, default: int) -> int:
    value = options.get(name, default)
    try:
        return int(value)
    except ValueError as error:
        raise LaunchFailed(
            f"ssh_config: {name} is not a number: {printable(str(value))}"
        ) from error
