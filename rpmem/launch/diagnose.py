"""Why rpmemd did not start, judging from the little that the far side said.

There are three pieces of evidence: how the process ended, what it wrote to stderr, and what was on
stdout in place of the status word. ssh's own messages are recognized by their wording, which has
been stable for two decades; any other message is quoted as it is.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from errno import EAGAIN, EMFILE, ENFILE, ENOMEM

from rpmem.base.printable import printable
from rpmem.base.remedies import remedy_for
from rpmem.base.target import Target
from rpmem.errors import (
    AuthenticationFailed,
    ConnectionRefused,
    DaemonMissing,
    DeadlineExceeded,
    HostKeyUnknown,
    HostUnknown,
    LaunchFailed,
    NoiseBeforeProtocol,
    RpmemError,
)
from rpmem.launch.base import Deadline, Transport

_STATUS_WORD = 4
_LARGEST_ERRNO = 4095
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127

# Seconds for a process to end after its stdout has, and for a talkative shell to finish a line.
_EXIT_GRACE_S = 2.0
_LINE_GRACE_S = 0.5
_LONGEST_LINE = 1024
_QUOTE = 200


def diagnose(transport: Transport, first_bytes: bytes = b"") -> RpmemError:
    """Explain why a session never got its status word, or ended right after it.

    Parameters
    ----------
    transport : Transport
        Not closed yet. If neither its stdout nor its process has ended and nothing strange was
        received, the only possible error is a time-out.
    first_bytes : bytes
        The bytes received so far.

    Returns
    -------
    RpmemError
        To be raised by the caller: one of `HostUnknown`, `ConnectionRefused`, `HostKeyUnknown`,
        `AuthenticationFailed`, `DaemonMissing`, `NoiseBeforeProtocol`, `LaunchFailed` or
        `DeadlineExceeded`.
    """
    word, spoken = first_bytes[:_STATUS_WORD], first_bytes
    if word == bytes(_STATUS_WORD):
        word = spoken = b""
    status = transport.exit_status(_EXIT_GRACE_S if transport.at_end else 0.0)
    errno = _as_errno(word)
    if errno is not None:
        status = transport.exit_status(_EXIT_GRACE_S)
        # "\n" followed by the zeros of a good status word would look like ECHILD.
        if status is not None or not word[:1].isspace():
            return _refused(transport, errno)
    error = _from_stderr(transport, status)
    if error is not None:
        return error
    if spoken:
        return _noise(transport, spoken)
    if status is None and not transport.at_end:
        silent = no_answer(transport.target, transport.timeout_s, words=transport.stderr_text())
        return _suspecting(silent, transport)
    return _suspecting(_ended(transport, status), transport)


def suspects(transport: Transport) -> str:
    """Name the settings of ssh_config(5) on this side that may explain an odd end.

    Returns
    -------
    str
        A sentence, or nothing.
    """
    settings = transport.settings()
    found = [
        words.format(value=_quote(settings[name]))
        for name, pattern, words in _SUSPECTS
        if re.fullmatch(pattern, settings.get(name, ""), re.IGNORECASE)
    ]
    if settings.get("permitlocalcommand") != "yes":
        found = [words for words in found if not words.startswith("LocalCommand")]
    return f"ssh_config on this side has {' and '.join(found)}" if found else ""


def _suspecting(error: RpmemError, transport: Transport) -> RpmemError:
    if found := suspects(transport):
        error.hint = f"{found}. {error.hint}" if error.hint else found
    return error


# --- the kinds, also for launchers that see the cause themselves ------------------------------


def host_unknown(target: Target, words: str) -> HostUnknown:
    """Return the error for a name that does not resolve, or leads nowhere."""
    return HostUnknown(
        f"{target.host} cannot be found: {_quote(words)}",
        hint="Check the spelling, the name service and the Host entries of ssh_config",
    )


def connection_refused(target: Target, words: str) -> ConnectionRefused:
    """Return the error for a machine on which no ssh server listens."""
    return ConnectionRefused(
        f"{target.host} refused the connection: {_quote(words)}",
        hint=f"Check that sshd runs on {target.host}, and on which port; "
        "give another one as host:port",
    )


def host_key_unknown(target: Target, words: str) -> HostKeyUnknown:
    """Return the error for a host key that has not been seen before."""
    return HostKeyUnknown(
        f"{target.host}'s host key is not known here: {_quote(words)}",
        hint=f"Compare its fingerprint and accept it once by hand with: {_ssh(target)} true",
    )


def host_key_changed(target: Target, words: str) -> HostKeyUnknown:
    """Return the error for a host key that differs from the known one."""
    return HostKeyUnknown(
        f"{target.host}'s host key is not the one that is known here: {_quote(words)}",
        hint="Somebody else may be answering, unless the machine was reinstalled; "
        f"if it was: ssh-keygen -R {shlex.quote(_known_hosts_name(target))}",
    )


def authentication_failed(target: Target, words: str) -> AuthenticationFailed:
    """Return the error for keys that are not accepted."""
    return AuthenticationFailed(
        f"{target.host} did not accept any key: {_quote(words)}",
        hint="rpmem never asks for passwords; load a key with ssh-add, or add one there with "
        f"ssh-copy-id, until this works: {_ssh(target, '-oBatchMode=yes')} true",
    )


def no_answer(
    target: Target, seconds: float | None, *, doing: str = "", words: str = ""
) -> DeadlineExceeded:
    """Return the error for a far side that did not answer in time."""
    what = f"{_node(target)} did not answer"
    if seconds is not None:
        what += f" in {seconds:g} s"
    if doing:
        what += f" while {doing}"
    if said := _last_lines(words):
        what += f"; so far it said {_quote(said)}"
    hint = "Allow more time with RPMEM_TIMEOUT"
    if not target.is_local:
        hint = f"Check that it can be reached, with: {_ssh(target)} true. {hint}"
    return DeadlineExceeded(what, hint=hint)


# Settings to look for on this side if the far side gives no reason: keyword and value as in `ssh
# -G`, and their effect.
_SUSPECTS: tuple[tuple[str, str, str], ...] = (
    ("stdinnull", "yes", "StdinNull, which keeps all input from rpmemd"),
    ("sessiontype", "none|subsystem", "SessionType {value}, under which no command is run"),
    ("forkafterauthentication", "yes", "ForkAfterAuthentication, which takes rpmemd's input away"),
    (
        "remotecommand",
        r"(?!none$).+",
        "RemoteCommand {value}, which keeps rpmemd from starting",
    ),
    ("localcommand", r"(?!none$).+", "LocalCommand {value}, whose output comes before rpmemd's"),
    ("loglevel", "silent|quiet", "LogLevel QUIET, which keeps ssh from saying what is wrong"),
)


# --- evidence ----------------------------------------------------------------------------------


def _changed(target: Target, text: str) -> RpmemError:
    offending = re.search(r"^Offending .*$", text, re.MULTILINE)
    words = offending[0] if offending else "REMOTE HOST IDENTIFICATION HAS CHANGED"
    return host_key_changed(target, words)


def _with(
    make: Callable[[Target, str], RpmemError], pattern: str
) -> Callable[[Target, str], RpmemError | None]:
    compiled = re.compile(rf"^.*(?:{pattern}).*$", re.MULTILINE)

    def test(target: Target, text: str) -> RpmemError | None:
        found = compiled.search(text)
        return make(target, found[0]) if found else None

    return test


def _timed_out(target: Target, words: str) -> RpmemError:
    return no_answer(target, None, words=words)


# The first match decides. "open failed" comes from a jump host.
_CONNECT = r"(?:ssh: connect to (?:host|address) .*|open failed: connect failed): "
_SSH_SAYS: tuple[Callable[[Target, str], RpmemError | None], ...] = (
    _with(host_unknown, r"ssh: Could not resolve hostname "),
    _with(host_unknown, _CONNECT + r"(?:Name or service not known|Temporary failure in name)"),
    _with(host_unknown, _CONNECT + r"(?:No route to host|Network is unreachable|Host is down)"),
    _with(connection_refused, _CONNECT + r"Connection refused"),
    _with(_timed_out, _CONNECT + r"(?:Connection|Operation) timed out"),
    _with(_timed_out, r"Connection timed out during banner exchange"),
    lambda target, text: (
        _changed(target, text)
        if re.search(r"HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY", text)
        else None
    ),
    _with(host_key_unknown, r"host key is known for .* requested strict checking"),
    _with(host_key_unknown, r"Host key verification failed"),
    _with(authentication_failed, r"Permission denied \([a-z]|Too many authentication failures"),
)


# Messages of shells, loaders and Python on the far side when they lack resources to start.
_RAN_OUT = (
    (EMFILE, r"Too many open files(?! in system)|shared object file: Error 24\b"),
    (ENFILE, r"Too many open files in system|shared object file: Error 23\b"),
    (EAGAIN, r"fork: .*Resource temporarily unavailable|[Cc]annot fork|can't start new thread"),
    (ENOMEM, r"Cannot allocate memory|failed to map segment"),
)


def _from_stderr(transport: Transport, status: int | None) -> RpmemError | None:
    """Return the error that ssh, or the shell behind it, clearly states; else None."""
    if status in (None, 0):
        return None
    text = transport.stderr_text()
    for number, words in _RAN_OUT:
        if re.search(words, text):
            what = _ended(transport, status).what
            return LaunchFailed(what, errno=number, hint=remedy_for(number))
    missing = _missing(transport, status, text)
    if missing is not None or transport.launcher != "openssh":
        return missing
    return next(
        (error for test in _SSH_SAYS if (error := test(transport.target, text)) is not None), None
    )


def _missing(transport: Transport, status: int | None, text: str) -> DaemonMissing | None:
    node, program = transport.node, _program(transport.command)
    module = re.search(r"^.*No module named '?rpmemd\b.*$", text, re.MULTILINE)
    if status == _NOT_FOUND:
        what = f"{program}: command not found on {node}"
    elif status == _NOT_EXECUTABLE:
        what = f"{program}: cannot be run on {node}"
    elif module:
        what = f"{program}: not installed on {node}"
    else:
        return None
    what = f"{what} ({_how(transport, status)})"
    if said := module[0] if module else _last_lines(text):
        what = f"{what}: {_quote(said)}"
    if transport.target.is_local:
        hint = "Install rpmem for this Python interpreter"
    else:
        hint = (
            f"Install rpmem on {node}, where non-interactive shells find it on their PATH, "
            "or give its full path in RPMEM_CMD"
        )
    return DaemonMissing(what, hint=hint)


def _noise(transport: Transport, spoken: bytes) -> NoiseBeforeProtocol:
    line = _first_line(transport, bytearray(spoken))
    if "LocalCommand" in (ours := suspects(transport)):
        return NoiseBeforeProtocol(
            f"'{printable(line, _QUOTE)}' was printed before the protocol, on this side or on "
            f"{transport.node}",
            hint=f"{ours}. Make it print nothing; if it already does: "
            f"{_ssh(transport.target)} true | wc -c must show 0",
        )
    printed = f"'{printable(line, _QUOTE)}'" if line else "a blank line"
    who = "rpmemd's command" if transport.target.is_local else f"{transport.node}'s login shell"
    if transport.target.is_local:
        hint = f"{_program(transport.command)} must not print anything but the protocol on stdout"
    else:
        hint = (
            "Non-interactive shells must be silent there: in ~/.bashrc and similar files, print "
            f"only if [ -t 1 ]. This must show 0: {_ssh(transport.target)} true | wc -c"
        )
    return NoiseBeforeProtocol(f"{who} printed {printed} before the protocol", hint=hint)


def _first_line(transport: Transport, data: bytearray) -> str:
    """Read on until a line is complete, or ended by rpmemd's status word (zeros)."""
    deadline = Deadline(_LINE_GRACE_S)
    while len(data) < _LONGEST_LINE and b"\0" not in data and b"\n" not in data.lstrip():
        try:
            more = transport.receive(_LONGEST_LINE, deadline.left())
        except DeadlineExceeded:
            break
        if not more:
            break
        data += more
    text = bytes(data).partition(b"\0")[0].strip()
    return text.partition(b"\n")[0].decode("utf-8", "replace").rstrip()


def _refused(transport: Transport, errno: int) -> LaunchFailed:
    what = f"rpmemd on {transport.node} refused to start: {os.strerror(errno)} (errno {errno})"
    if said := _last_lines(transport.stderr_text()):
        what = f"{what}: {_quote(said)}"
    hint = remedy_for(errno) or f"Check rpmemd's configuration and log on {transport.node}"
    return LaunchFailed(what, errno=errno, hint=hint)


def _ended(transport: Transport, status: int | None) -> LaunchFailed:
    how = "closed its output" if status is None else _how(transport, status)
    what = f"rpmemd on {transport.node} ended before it had said anything ({how})"
    if said := _last_lines(transport.stderr_text()):
        return LaunchFailed(f"{what}: {_quote(said)}", hint=_try_by_hand(transport))
    return LaunchFailed(f"{what} and gave no reason", hint=_try_by_hand(transport))


# --- details -----------------------------------------------------------------------------------


def _as_errno(word: bytes) -> int | None:
    """Return the status word's errno; None for zero, for less than a word and for noise."""
    value = int.from_bytes(word, sys.byteorder)
    return value if len(word) == _STATUS_WORD and 0 < value <= _LARGEST_ERRNO else None


def _how(transport: Transport, status: int | None) -> str:
    if status is not None and status < 0:
        if transport.launcher == "paramiko":  # which does not tell what ended it
            return "killed there, or the connection was lost"
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit {status}" if transport.launcher == "local" else f"ssh exit {status}"


def _program(command: str) -> str:
    """Return the word of a command line that most likely names the program."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    for word in words:
        if word not in ("exec", "env") and "=" not in word:
            return printable(word, _QUOTE)
    return "rpmemd"


def _last_lines(text: str, most: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines()]
    dull = ("debug1:", "debug2:", "debug3:", "Warning: Permanently added")
    telling = [line for line in lines if line and not line.startswith(dull)]
    return "; ".join(telling[-most:])


def _quote(words: str) -> str:
    return f"'{printable(words, 3 * _QUOTE)}'"


def _node(target: Target) -> str:
    return "rpmemd on this machine" if target.is_local else target.host


def _ssh(target: Target, *options: str) -> str:
    port = () if target.port is None else ("-p", str(target.port))
    return shlex.join(("ssh", *port, *options, target.ssh_destination))


def _known_hosts_name(target: Target) -> str:
    return target.host if target.port in (None, 22) else f"[{target.host}]:{target.port}"


def _try_by_hand(transport: Transport) -> str:
    if transport.target.is_local:
        return f"Try it by hand: {printable(transport.command, _QUOTE)}"
    command = printable(transport.command, _QUOTE)
    return f"Try it by hand: {_ssh(transport.target)} {shlex.quote(command)}"
