"""Every cause of a failed start, from recorded words of ssh, shells and rpmemd."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from rpmem.launch.base import Transport
from rpmem.launch.diagnose import diagnose, no_answer

NODE2 = Target.parse("node2")


class Recorded(Transport):
    """A far side of which everything is known beforehand."""

    def __init__(
        self,
        *,
        status=None,
        stderr="",
        stdout=b"",
        target=NODE2,
        launcher="openssh",
        command="rpmemd",
        at_end=None,
    ):
        super().__init__(target, command, 30.0)
        self.launcher = launcher
        self._status = status
        self._stderr = stderr
        self._stdout = stdout
        self._ends = status is not None if at_end is None else at_end

    peer_host = "10.0.0.2"
    closed = False

    @property
    def at_end(self):
        return self._ends and not self._stdout

    def _send_some(self, data, deadline):
        raise NotImplementedError

    def receive(self, limit, timeout_s):
        data, self._stdout = self._stdout[:limit], self._stdout[limit:]
        if not data and not self._ends:
            raise DeadlineExceeded("nothing came")
        return data

    def stderr_text(self):
        return self._stderr

    def exit_status(self, timeout_s=0.0):
        return self._status

    def kill(self):
        raise NotImplementedError

    def _finish(self, timeout_s):
        raise NotImplementedError

    def _drop(self):
        raise NotImplementedError


RESOLVE = "ssh: Could not resolve hostname node2: "
CONNECT = "ssh: connect to host node2 port 22: "
JUMP = "channel 0: open failed: connect failed: "
UNKNOWN_KEY = """\
No ED25519 host key is known for node2 and you have requested strict checking.\r
Host key verification failed.\r
"""
CHANGED_KEY = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Offending ED25519 key in /home/u/.ssh/known_hosts:3
Host key verification failed.
"""
TOO_MANY_KEYS = """\
Received disconnect from 10.0.0.2 port 22:2: Too many authentication failures
Disconnected from 10.0.0.2 port 22
"""
JUMP_REFUSED = f"""{JUMP}Connection refused
stdio forwarding failed
kex_exchange_identification: Connection closed by remote host
Connection closed by UNKNOWN port 65535
"""

SSH_SAYS = [
    (RESOLVE + "Name or service not known", HostUnknown),
    (RESOLVE + "Temporary failure in name resolution", HostUnknown),
    (CONNECT + "No route to host", HostUnknown),
    (CONNECT + "Network is unreachable", HostUnknown),
    (CONNECT + "Connection refused", ConnectionRefused),
    (CONNECT + "Connection timed out", DeadlineExceeded),
    ("Connection timed out during banner exchange", DeadlineExceeded),
    (JUMP_REFUSED, ConnectionRefused),
    (JUMP + "Name or service not known\nstdio forwarding failed", HostUnknown),
    ("Host key verification failed.", HostKeyUnknown),
    (UNKNOWN_KEY, HostKeyUnknown),
    (CHANGED_KEY, HostKeyUnknown),
    ("u@node2: Permission denied (publickey,password).", AuthenticationFailed),
    (TOO_MANY_KEYS, AuthenticationFailed),
    ("kex_exchange_identification: Connection closed by remote host", LaunchFailed),
    ("rpmemd: invalid option", LaunchFailed),
]


@pytest.mark.parametrize(("words", "kind"), SSH_SAYS)
def test_words_of_ssh(words, kind):
    error = diagnose(Recorded(status=255, stderr=words))
    assert type(error) is kind
    assert "node2" in str(error)
    assert error.hint
    quoted = [line.strip() for line in words.splitlines() if line.strip().strip("@")]
    assert any(line in str(error) for line in quoted), "the far side's own words are missing"


def test_a_changed_host_key_is_told_from_an_unknown_one():
    unknown = diagnose(Recorded(status=255, stderr=UNKNOWN_KEY))
    changed = diagnose(Recorded(status=255, stderr=CHANGED_KEY))
    assert "not known here" in str(unknown)
    assert "not the one that is known" in str(changed)
    assert "known_hosts:3" in str(changed)
    assert "ssh-keygen -R node2" in str(changed)


def test_port_and_user_are_in_the_commands_to_try():
    target = Target.parse("alice@node2:2222")
    words = "alice@node2: Permission denied (publickey)."
    error = diagnose(Recorded(status=255, stderr=words, target=target))
    assert "ssh -p 2222 -oBatchMode=yes alice@node2" in str(error)
    words = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @"
    error = diagnose(Recorded(status=255, stderr=words, target=target))
    assert "ssh-keygen -R '[node2]:2222'" in str(error)


@pytest.mark.parametrize("launcher", ["openssh", "paramiko"])
@pytest.mark.parametrize(
    "words",
    [
        "bash: line 1: rpmemd: command not found",
        "sh: 1: rpmemd: not found",
        "zsh:1: command not found: rpmemd",
        "",
    ],
)
def test_missing_command(launcher, words):
    error = diagnose(Recorded(status=127, stderr=words + "\n", launcher=launcher))
    assert type(error) is DaemonMissing
    assert str(error).startswith("rpmemd: command not found on node2 (ssh exit 127)")
    assert words in str(error)
    assert "RPMEM_CMD" in str(error)


def test_missing_command_is_named_as_it_was_given():
    command = "PMEM_IS_PMEM_FORCE=1 /opt/bin/rpmemd --log-level debug"
    error = diagnose(Recorded(status=127, command=command))
    assert str(error).startswith("/opt/bin/rpmemd: command not found on node2")


def test_command_that_cannot_be_run():
    words = "bash: line 1: /etc/passwd: Permission denied"
    error = diagnose(Recorded(status=126, stderr=words, command="/etc/passwd"))
    assert type(error) is DaemonMissing
    assert "(ssh exit 126)" in str(error)


def test_interpreter_without_the_package():
    words = "/usr/bin/python3: No module named rpmemd\n"
    error = diagnose(
        Recorded(status=1, stderr=words, target=Target.parse("local:"), launcher="local")
    )
    assert type(error) is DaemonMissing
    assert "on this machine (exit 1)" in str(error)


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("python3: libm.so.6: cannot open shared object file: Error 24", errno.EMFILE),
        ("OSError: [Errno 24] Too many open files", errno.EMFILE),
        ("bash: line 1: /dev/null: Too many open files in system", errno.ENFILE),
        ("bash: fork: retry: Resource temporarily unavailable", errno.EAGAIN),
        ("sh: 1: Cannot fork", errno.EAGAIN),
        ("RuntimeError: can't start new thread", errno.EAGAIN),
        ("bash: fork: Cannot allocate memory", errno.ENOMEM),
    ],
)
@pytest.mark.parametrize("status", [1, 127, 255])
def test_what_ran_out_on_the_target(words, number, status):
    error = diagnose(Recorded(status=status, stderr=words + "\n"))
    assert type(error) is LaunchFailed
    assert error.errno == number
    assert remedy_for(number) in str(error)
    assert "node2" in str(error)


def test_what_could_run_out_and_did_not():
    error = diagnose(Recorded(status=127, stderr="bash: line 1: rpmemd: command not found\n"))
    assert type(error) is DaemonMissing


NOISE = [
    (b"Welc", b"ome\n\0\0\0\0", "Welcome"),
    (b"Welcome to node2\nLast login: never\n\0\0\0\0", b"", "Welcome to node2"),
    (b"hi\n\0", b"\0\0\0", "hi"),
    (b"\n\n  m", b"otd  \n", "motd"),
    (b"\x1b[1m", b"bold\n", "\\x1b[1mbold"),
    (b"a" * 4, b"a" * 5000, "a" * 197 + "..."),
    (b"h", b"", "h"),
]


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("first", "rest", "shown"), NOISE)
def test_noise(first, rest, shown, running):
    transport = Recorded(status=None if running else 0, stdout=rest, at_end=not running)
    error = diagnose(transport, first)
    assert type(error) is NoiseBeforeProtocol
    assert str(error).startswith(f"node2's login shell printed '{shown}' before the protocol")
    assert "wc -c" in str(error)


def test_a_blank_line_is_not_an_errno():
    error = diagnose(Recorded(stdout=b"\0"), b"\n\0\0\0")
    assert type(error) is NoiseBeforeProtocol
    assert "a blank line" in str(error)


def test_errno_in_the_status_word():
    word = struct.pack("=i", errno.EINVAL)
    error = diagnose(Recorded(status=1, stderr="rpmemd: /etc/rpmemd.conf:3: bad value\n"), word)
    assert type(error) is LaunchFailed
    assert error.errno == errno.EINVAL
    assert "Invalid argument (errno 22)" in str(error)
    assert "/etc/rpmemd.conf:3: bad value" in str(error)


def test_errno_13_of_a_daemon_that_has_ended_is_not_a_carriage_return():
    error = diagnose(Recorded(status=1), struct.pack("=i", errno.EACCES))
    assert type(error) is LaunchFailed
    assert error.errno == errno.EACCES


def test_silence_is_a_deadline():
    error = diagnose(Recorded())
    assert type(error) is DeadlineExceeded
    assert "node2 did not answer in 30 s" in str(error)
    assert "RPMEM_TIMEOUT" in str(error)


def test_silence_with_words_on_stderr_quotes_them():
    error = diagnose(Recorded(stderr="Warning: Permanently added 'x'.\nwaiting for lock\n"))
    assert type(error) is DeadlineExceeded
    assert "'waiting for lock'" in str(error)


def test_end_without_words():
    error = diagnose(Recorded(status=0))
    assert type(error) is LaunchFailed
    assert "ended before it had said anything (ssh exit 0) and gave no reason" in str(error)


def test_end_after_a_good_status_word():
    error = diagnose(Recorded(status=1, stderr="Traceback\nMemoryError: no\n"), bytes(4))
    assert type(error) is LaunchFailed
    assert "MemoryError: no" in str(error)


def test_output_closed_while_the_process_goes_on():
    error = diagnose(Recorded(at_end=True))
    assert type(error) is LaunchFailed
    assert "closed its output" in str(error)


def test_end_by_a_signal():
    local = Target.parse("local:")
    error = diagnose(Recorded(status=-9, target=local, launcher="local"))
    assert "this machine" in str(error)
    assert "killed by SIGKILL" in str(error)
    error = diagnose(Recorded(status=-1, launcher="paramiko"))
    assert "connection was lost" in str(error)


def test_ssh_words_from_the_far_side_of_paramiko_are_not_ssh_s():
    """rpmemd itself may fail to connect somewhere; that is not the session's cause."""
    words = "ssh: connect to host elsewhere port 22: Connection refused"
    error = diagnose(Recorded(status=1, stderr=words, launcher="paramiko"))
    assert type(error) is LaunchFailed


def test_no_answer_says_what_was_going_on():
    error = no_answer(NODE2, 5, doing="logging in to node2")
    assert "did not answer in 5 s while logging in to node2" in str(error)


@given(
    status=st.none() | st.integers(-64, 255),
    stderr=st.text(max_size=300),
    first=st.binary(max_size=8),
    stdout=st.binary(max_size=64),
    at_end=st.booleans(),
    launcher=st.sampled_from(["openssh", "paramiko", "local"]),
    target=st.sampled_from(["node2", "a@[fe80::1]:7", "local:"]),
)
def test_whatever_is_said_gives_an_error_that_can_be_printed(
    status, stderr, first, stdout, at_end, launcher, target
):
    transport = Recorded(
        status=status,
        stderr=stderr,
        stdout=stdout,
        at_end=at_end,
        launcher=launcher,
        target=Target.parse(target),
    )
    error = diagnose(transport, first)
    assert isinstance(error, RpmemError)
    assert str(error).isprintable()
    assert len(str(error)) < 3000


def test_of_many_words_the_last_are_quoted():
    said = "\n".join(f"line {number}" for number in range(9))
    assert "line 6; line 7; line 8" in no_answer(Target.parse("node2"), 5.0, words=said).what
    assert "line 5" not in no_answer(Target.parse("node2"), 5.0, words=said).what
