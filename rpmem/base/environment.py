"""Environment variables: librpmem's, with its reading of them, and a few of our own.

librpmem(7) documents the variables down to ``RPMEM_LOG_FILE``. As there, the variables are read
once per process. Unlike there, a value that makes no sense is an error instead of an unseen line in
a log; what librpmem accepts is accepted with the same meaning.

======================== ============= ==========================================================
variable                 default       meaning
======================== ============= ==========================================================
RPMEM_SSH                ssh           program that is run as ssh(1), or a command with arguments
RPMEM_CMD                rpmemd        command on the target; several, separated by ``|``, are
                                       used in turn
RPMEM_ENABLE_SOCKETS     0             offer the ``sockets`` provider to PMDK's rpmemd
RPMEM_ENABLE_VERBS       1             use the ``verbs`` provider if there is one
RPMEM_MAX_NLANES         no limit      most lanes per replica
RPMEM_WORK_QUEUE_SIZE    automatic     operations a lane may have under way; towards PMDK's
                                       rpmemd 50
RPMEM_LOG_LEVEL          0             0 to 4, more is more
RPMEM_LOG_FILE           stderr        file for the log; a name that ends in ``-`` gets the
                                       process id appended
RPMEM_PROVIDER           best          what carries lanes: ``stream``, ``verbs`` or one of
                                       libfabric's, such as ``tcp``
RPMEM_LAUNCHER           auto          ``auto``, ``openssh`` or ``paramiko``
RPMEM_TIMEOUT            30            seconds that any answer may take
RPMEM_SPIN_US            100           microseconds of polling before sleeping; 0: never poll
RPMEM_PROTOCOL           auto          ``native``: never fall back to PMDK's protocol; ``pmdk``:
                                       use it immediately
RPMEM_LANE_HOSTS         none          hosts, addresses and networks, separated by commas, where
                                       a target may have its lanes, besides where ssh went
RPMEM_ENCRYPTION         auto          of lanes to other machines: ``on`` refuses providers that
                                       cannot, ``off`` goes without
======================== ============= ==========================================================

`rpmem.base.libraries` reads ``RPMEM_LIBRARIES``, at the first use of a library.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rpmem.base.printable import printable
from rpmem.errors import ConfigError, UsageError

DEFAULT_COMMAND = "rpmemd"
DEFAULT_TIMEOUT_S = 30.0
LAUNCHERS = ("auto", "openssh", "paramiko")
PROTOCOLS = ("auto", "native", "pmdk")
ENCRYPTIONS = ("auto", "on", "off")

_UINT_MAX = 0xFFFFFFFF
_INT_MAX = 0x7FFFFFFF
_LONG_MAX = (1 << 63) - 1
_LONGEST_TIMEOUT_S = 1e6
_LONGEST_SPIN = 10_000_000

# What strtol accepts in base 10: C's white space, a sign, digits, and nothing after them.
_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]{1,40})")
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15}")
_HOST = re.compile(r"[A-Za-z0-9_.:%-]{1,255}(/[0-9]{1,3})?")
_PROVIDER = re.compile(r"[A-Za-z0-9_-]+(;[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class Environment:
    """The settings from the environment, checked.

    Attributes
    ----------
    ssh : str
        ``RPMEM_SSH``: a program found by PATH or, if no program has that whole name, a command with
        arguments, split as a shell does.
    ssh_is_set : bool
        Whether it was given, rather than left at its default.
    commands : tuple of str
        ``RPMEM_CMD``, see `next_command`.
    enable_sockets, enable_verbs : bool
        ``RPMEM_ENABLE_SOCKETS``, ``RPMEM_ENABLE_VERBS``.
    max_nlanes : int
        ``RPMEM_MAX_NLANES``; 2**32 - 1 when there is no limit.
    work_queue_size : int or None
        ``RPMEM_WORK_QUEUE_SIZE``; None: 50 towards PMDK's rpmemd, else the provider's choice.
    log_level : int
        ``RPMEM_LOG_LEVEL``.
    log_file : str or None
        ``RPMEM_LOG_FILE`` as it is set, see `log_path`; None: standard error.
    provider : str or None
        ``RPMEM_PROVIDER``; None: the best that both sides have.
    launcher : str
        ``RPMEM_LAUNCHER``, one of `LAUNCHERS`.
    timeout_s : float
        ``RPMEM_TIMEOUT`` in seconds.
    spin_us : int or None
        ``RPMEM_SPIN_US``; None: `rpmem.session.start.DEFAULT_SPIN_US`.
    protocol : str
        ``RPMEM_PROTOCOL``, one of `PROTOCOLS`.
    lane_hosts : tuple of str
        ``RPMEM_LANE_HOSTS``, see `hosts_in`.
    encryption : str
        ``RPMEM_ENCRYPTION``, one of `ENCRYPTIONS`.
    """

    ssh: str = "ssh"
    commands: tuple[str, ...] = (DEFAULT_COMMAND,)
    enable_sockets: bool = False
    enable_verbs: bool = True
    max_nlanes: int = _UINT_MAX
    work_queue_size: int | None = None
    log_level: int = 0
    log_file: str | None = None
    provider: str | None = None
    launcher: str = "auto"
    timeout_s: float = DEFAULT_TIMEOUT_S
    spin_us: int | None = None
    protocol: str = "auto"
    lane_hosts: tuple[str, ...] = ()
    encryption: str = "auto"
    ssh_is_set: bool = field(default=False, compare=False)
    # Taking the next item of a cycle is one step in C: no two threads get the same one.
    _turns: Iterator[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_turns", itertools.cycle(self.commands))

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Environment:
        """Read and check the variables.

        Parameters
        ----------
        variables : mapping, optional
            Instead of ``os.environ``.

        Returns
        -------
        Environment
            With defaults for variables that are not set.

        Raises
        ------
        ConfigError
            It names the variable, its value and the values allowed.
        """
        source = os.environ if variables is None else variables
        return cls(
            ssh=_program(source, "RPMEM_SSH", "ssh"),
            commands=_commands(source, "RPMEM_CMD"),
            enable_sockets=_flag(source, "RPMEM_ENABLE_SOCKETS", default=False),
            enable_verbs=_flag(source, "RPMEM_ENABLE_VERBS", default=True),
            max_nlanes=_positive(source, "RPMEM_MAX_NLANES") or _UINT_MAX,
            work_queue_size=_positive(source, "RPMEM_WORK_QUEUE_SIZE"),
            log_level=_level(source, "RPMEM_LOG_LEVEL"),
            log_file=source.get("RPMEM_LOG_FILE") or None,
            provider=_provider(source, "RPMEM_PROVIDER"),
            launcher=_choice(source, "RPMEM_LAUNCHER", LAUNCHERS),
            timeout_s=_seconds(source, "RPMEM_TIMEOUT", DEFAULT_TIMEOUT_S),
            spin_us=_spin(source, "RPMEM_SPIN_US"),
            protocol=_choice(source, "RPMEM_PROTOCOL", PROTOCOLS),
            lane_hosts=_hosts(source, "RPMEM_LANE_HOSTS"),
            encryption=_choice(source, "RPMEM_ENCRYPTION", ENCRYPTIONS),
            ssh_is_set=bool(source.get("RPMEM_SSH")),
        )

    def next_command(self) -> str:
        """Return the command with which to start the next target.

        Every start in this process, whether to create, open or remove, takes the next of
        `commands`, and after the last the first again.
        """
        return next(self._turns)

    def log_path(self, pid: int | None = None) -> str | None:
        """Return the name of the log file of a process, None for standard error.

        Parameters
        ----------
        pid : int, optional
            Default: this process.
        """
        if self.log_file is None or not self.log_file.endswith("-"):
            return self.log_file
        return f"{self.log_file}{os.getpid() if pid is None else pid}"


@functools.cache
def current() -> Environment:
    """Return the environment as it was when this was first called.

    Returns
    -------
    Environment
        Always the same object, so that `Environment.next_command` takes turns across the whole
        process. ``current.cache_clear()`` makes the next call read again.

    Raises
    ------
    ConfigError
        As `Environment.read`; the next call reads again.
    """
    return Environment.read()


def hosts_in(text: str) -> tuple[str, ...]:
    """Return the hosts, addresses and networks of a list separated by commas.

    Raises
    ------
    ValueError
        An item is neither host, address nor network.
    """
    hosts = tuple(host.strip() for host in text.split(","))
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"'{printable(host, 100)}' is not a host, address or network")
        if "/" in host:
            import ipaddress

            ipaddress.ip_network(host, strict=False)
    return hosts


def protocol_of(given: str | None, environment: Environment) -> str:
    """Return a protocol: the caller's, or the environment's if that is None.

    Raises
    ------
    UsageError
        There is no such protocol.
    """
    protocol = environment.protocol if given is None else given
    if protocol not in PROTOCOLS:
        raise UsageError(
            f"there is no protocol {protocol!r}", hint=f"Protocols are {', '.join(PROTOCOLS)}"
        )
    return protocol


def encryption_of(given: str | None, environment: Environment) -> str:
    """Return what is wanted of encryption: the caller's word, or the environment's if that is None.

    Raises
    ------
    UsageError
        There is no such word.
    """
    wanted = environment.encryption if given is None else given
    if wanted not in ENCRYPTIONS:
        raise UsageError(f"encryption is one of {', '.join(ENCRYPTIONS)}, not {wanted!r}")
    return wanted


def timeout_of(given: object) -> float:
    """Return a time-out in seconds: the caller's, or the environment's if that is None.

    Raises
    ------
    UsageError
        It is not a number above 0 and at most a million.
    """
    if given is None:
        return current().timeout_s
    try:
        seconds = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = 0.0
    if isinstance(given, str | bytes | bool) or not 0 < seconds <= _LONGEST_TIMEOUT_S:
        raise UsageError(
            f"timeout is {given!r}, which is not a number of seconds, above 0 and up to "
            f"{_LONGEST_TIMEOUT_S:g}",
            hint="Leave it out for the default (RPMEM_TIMEOUT, else 30)",
        )
    return seconds


def check_text(name: str, given: str | None) -> str | None:
    """Return a text argument as given; `UsageError` if it is not a str."""
    if given is not None and not isinstance(given, str):
        raise UsageError(f"{name} is a str, not {type(given).__name__}")
    return given


# --- one reader per kind of value -------------------------------------------------------------


def _refused(name: str, value: str, wanted: str) -> ConfigError:
    return ConfigError(
        f"{name} is '{printable(value, 100)}', which is not {wanted}",
        where="environment",
        hint=f"Correct {name}, or unset it",
    )


def _integer(name: str, value: str, wanted: str) -> int:
    match = _INTEGER.fullmatch(value)
    if match is None:
        raise _refused(name, value, wanted)
    return int(match[1])


def _positive(source: Mapping[str, str], name: str) -> int | None:
    """Read a count as librpmem does: empty means unset, and too large means the largest."""
    value = source.get(name, "")
    if not value:
        return None
    number = _integer(name, value, "a positive integer")
    if not 0 < number <= _LONG_MAX:
        raise _refused(name, value, "a positive integer")
    return min(number, _UINT_MAX)


def _flag(source: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Read a switch as librpmem does: any integer except 0 means on, and empty means 0."""
    value = source.get(name)
    if value is None:
        return default
    if not value:
        return False
    number = _integer(name, value, "an integer (0 for off, 1 for on)")
    if not -_INT_MAX - 1 <= number <= _INT_MAX:
        raise _refused(name, value, "an integer of 32 bits (0 for off, 1 for on)")
    return number != 0


def _level(source: Mapping[str, str], name: str) -> int:
    value = source.get(name, "")
    # As in librpmem, a negative level means 0.
    return max(_integer(name, value, "an integer from 0 to 4"), 0) if value else 0


def _program(source: Mapping[str, str], name: str, default: str) -> str:
    value = source.get(name, "")
    if value and not value.strip():
        raise _refused(name, value, "the name of a program")
    return value or default


def _commands(source: Mapping[str, str], name: str) -> tuple[str, ...]:
    value = source.get(name, "")
    if not value:
        return (DEFAULT_COMMAND,)
    commands = tuple(command.strip() for command in value.split("|"))
    if not all(commands):
        # librpmem would start a login shell on the target and wait for it to speak the protocol.
        raise _refused(name, value, "a list of commands, with one before and one after every '|'")
    return commands


def _provider(source: Mapping[str, str], name: str) -> str | None:
    value = source.get(name, "")
    if not value:
        return None
    if not _PROVIDER.fullmatch(value):
        raise _refused(name, value, "the name of a provider, such as stream, verbs or tcp")
    return value


def _choice(source: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = source.get(name, "") or choices[0]
    if value not in choices:
        raise _refused(name, value, f"one of {', '.join(choices)}")
    return value


def _seconds(source: Mapping[str, str], name: str, default: float) -> float:
    value = source.get(name, "")
    if not value:
        return default
    if not _DECIMAL.fullmatch(value) or not 0 < float(value) <= _LONGEST_TIMEOUT_S:
        raise _refused(
            name, value, f"a number of seconds, above 0 and up to {_LONGEST_TIMEOUT_S:g}"
        )
    return float(value)


def _spin(source: Mapping[str, str], name: str) -> int | None:
    value = source.get(name, "")
    if not value:
        return None
    wanted = f"a number of microseconds from 0 to {_LONGEST_SPIN}"
    number = _integer(name, value, wanted)
    if not 0 <= number <= _LONGEST_SPIN:
        raise _refused(name, value, wanted)
    return number


def _hosts(source: Mapping[str, str], name: str) -> tuple[str, ...]:
    value = source.get(name, "")
    if not value:
        return ()
    try:
        return hosts_in(value)
    except ValueError:
        wanted = "a list of hosts, addresses and networks such as 10.0.0.0/8, separated by commas"
        raise _refused(name, value, wanted) from None
