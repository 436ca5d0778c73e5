"""The streams of a child process: time limits, floods, ends, forks and signals."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rpmem.base.target import Target
from rpmem.errors import (
    ClosedError,
    DaemonMissing,
    DeadlineExceeded,
    ForkedError,
    LaunchFailed,
    ReplicaLost,
)
from rpmem.launch import local
from rpmem.launch.base import STDERR_LIMIT, Deadline, Tail
from rpmem.launch.child import StderrDrain
from rpmem.launch.diagnose import diagnose
from tests.support.streams import SOON, echoed, read_all, received_at_the_end

HERE = Target.parse("local:")


@pytest.fixture
def start():
    started = []

    def run(command, timeout_s=SOON):
        transport = local.start(HERE, [], command=command, timeout_s=timeout_s)
        started.append(transport)
        return transport

    yield run
    for transport in started:
        transport.close(0.1)


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition, timeout_s=SOON):
    deadline = Deadline(timeout_s)
    while not condition():
        assert not deadline.passed, "did not happen in time"
        time.sleep(0.01)


def test_bytes_go_through_unchanged(start):
    transport = start("exec cat")
    message = bytes(range(256)) * 4096  # far more than a pipe holds
    assert echoed(transport, message) == message
    assert transport.exit_status() is None
    assert not transport.at_end


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_send_takes_any_bytes(start, make):
    transport = start("exec cat")
    transport.send(make(b"abc"))
    assert transport.receive(1, SOON) == b"a"
    assert transport.receive(10, SOON) == b"bc"


def test_receive_has_a_deadline_and_stays_usable(start):
    transport = start("exec cat")
    with pytest.raises(DeadlineExceeded, match=r"this machine sent nothing within 0\.05 s"):
        transport.receive(1, 0.05)
    with pytest.raises(DeadlineExceeded):
        transport.receive(1, 0)
    transport.send(b"x")
    assert transport.receive(1, SOON) == b"x"


def test_send_has_a_deadline(start):
    transport = start("exec sleep 60")
    with pytest.raises(DeadlineExceeded, match="took no data"):
        transport.send(bytes(1 << 22), timeout_s=0.1)


def test_send_uses_the_launch_s_deadline_by_default(start):
    transport = start("exec sleep 60", timeout_s=0.1)
    with pytest.raises(DeadlineExceeded):
        transport.send(bytes(1 << 22))


def test_end_of_output_is_said_every_time(start):
    transport = start("printf end")
    assert read_all(transport) == b"end"
    assert transport.at_end
    assert transport.receive(1, 0) == b""
    assert transport.exit_status(SOON) == 0


@pytest.mark.parametrize(
    ("command", "status"), [("exit 7", 7), ("kill -9 $$", -9), ("true", 0), ("exit 255", 255)]
)
def test_exit_status(start, command, status):
    assert start(command).exit_status(SOON) == status


def test_exit_status_waits_only_as_long_as_told(start):
    transport = start("exec sleep 60")
    assert transport.exit_status() is None
    assert transport.exit_status(0.05) is None


def test_sending_to_a_process_that_has_ended(start):
    transport = start("exec true")
    assert transport.exit_status(SOON) == 0
    with pytest.raises(ReplicaLost, match="has ended the session"):
        transport.send(b"x")


def test_a_flood_on_stderr_blocks_nobody_and_only_its_end_is_kept(start):
    transport = start("yes 0123456789 | head -c 11000000 >&2; echo last >&2; printf done")
    assert read_all(transport) == b"done"
    assert transport.exit_status(SOON) == 0
    text = transport.stderr_text()
    assert len(text) == STDERR_LIMIT
    assert text.endswith("0123456789\nlast\n")


def test_stderr_of_a_process_that_has_ended_is_complete(start):
    for _ in range(20):
        transport = start("echo why >&2; exit 3")
        assert transport.exit_status(SOON) == 3
        assert transport.stderr_text() == "why\n"


def test_stderr_held_open_by_a_helper_delays_nothing(start):
    """As ssh's ControlPersist does."""
    transport = start("sleep 30 2>&2 </dev/null >/dev/null & echo why >&2; exit 3")
    assert transport.exit_status(SOON) == 3
    before = time.monotonic()
    assert transport.stderr_text() == "why\n"
    transport.close()
    assert time.monotonic() - before < 10


def test_close_lets_a_daemon_finish_by_the_end_of_its_stdin(start, tmp_path):
    witness = tmp_path / "ended"
    transport = start(f"cat >/dev/null; yes | head -c 300000; echo ok > {witness}")
    transport.close()
    assert witness.read_text() == "ok\n", "its last words on stdout must not stop it"
    assert transport.exit_status() == 0


def test_close_ends_who_does_not_end(start):
    transport = start("trap '' TERM; while :; do sleep 1; done")
    time.sleep(0.2)
    transport.close(0.1)
    assert transport.exit_status() == -signal.SIGKILL


def test_close_ends_helpers_with_their_leader(start, tmp_path):
    """As the ProxyCommand of an ssh that hangs."""
    note = tmp_path / "helper"
    transport = start(f"sleep 60 & echo $! > {note}; wait")
    wait_until(lambda: note.exists() and note.read_text())
    helper = int(note.read_text())
    assert alive(helper)
    transport.close(0.05)
    wait_until(lambda: not alive(helper))


def test_close_is_idempotent_and_final(start):
    transport = start("exec cat")
    transport.close()
    transport.close()
    assert transport.closed
    with pytest.raises(ClosedError):
        transport.send(b"x")
    with pytest.raises(ClosedError):
        transport.receive(1, 1)
    assert "closed" in repr(transport)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_waiting_receiver_is_woken(start, end):
    transport = start("exec sleep 60")
    ends = {"close": lambda: transport.close(0.05), "kill": transport.kill}
    got = received_at_the_end(transport, ends[end], head_start_s=0.1)
    assert got == b"" or isinstance(got, ClosedError)


def test_a_waiting_sender_is_woken_by_close(start):
    transport = start("exec sleep 60")
    result = []

    def push():
        try:
            transport.send(bytes(1 << 22), timeout_s=60)
        except (ClosedError, ReplicaLost) as error:
            result.append(error)

    sender = threading.Thread(target=push)
    sender.start()
    time.sleep(0.1)
    transport.close(0.05)
    sender.join(SOON)
    assert not sender.is_alive()
    assert result


def test_nothing_is_left_open(start):
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for _ in range(5):
        start("exec cat").close()
    with pytest.raises(LaunchFailed):
        local.LocalTransport(["/no/such/program"], target=HERE, command="x", timeout_s=1)
    assert not set(os.listdir("/proc/self/fd")) - before
    assert threading.active_count() <= threads


def test_nothing_is_left_open_though_what_reads_stderr_is_slow(start, monkeypatch):
    drop = StderrDrain.drop

    def slow(self):
        time.sleep(0.2)
        drop(self)

    monkeypatch.setattr(StderrDrain, "drop", slow)
    before = os.listdir("/proc/self/fd")
    transport = start("sleep 30 2>&2 </dev/null >/dev/null & exit 0")  # a helper holds it open
    transport.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_child_gets_three_descriptors_and_no_more(start):
    first = start("exec cat")
    second = start("ls /proc/self/fd")
    # ls itself has the directory open.
    assert read_all(second).split() == [b"0", b"1", b"2", b"3"]
    assert first.exit_status() is None


def test_the_child_leads_a_session_of_its_own(start):
    """So a Ctrl-C for the program does not reach it."""
    transport = start("exec cat")
    assert os.getsid(transport.pid) == transport.pid != os.getsid(0)


def test_a_transport_that_is_forgotten_ends_its_child(start):
    transport = local.start(HERE, [], command="exec cat", timeout_s=1)
    process = transport.pid
    held = [transport]
    del transport
    with pytest.warns(ResourceWarning, match="never closed"):
        held.clear()  # the last reference
    wait_until(lambda: not alive(process))


def test_a_forked_process_lets_go(start):
    """Its copy must not keep the session alive, nor end it."""
    transport = start("exec cat")
    go_on, hold = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hold)
        code = 1
        try:
            try:
                transport.send(b"x")
            except ForkedError:
                transport.close()
                code = 0
            os.read(go_on, 1)  # lives until the parent is done
        finally:
            os._exit(code)
    os.close(go_on)
    try:
        transport.send(b"still here")
        assert transport.receive(100, SOON) == b"still here"
        process = transport.pid
        transport.close()
        assert transport.exit_status() == 0, "the end of stdin did not arrive"
        assert not alive(process)
    finally:
        os.close(hold)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SCRIPT = """
import signal, sys, time
from rpmem.launch import local
from rpmem.base.target import Target
from rpmem.errors import ReplicaLost
{before}
transport = local.start(Target.parse("local:"), [], command={command!r}, timeout_s=10)
{after}
"""


def run_script(before="", command="exec cat", after="", **options):
    text = SCRIPT.format(before=before, command=command, after=after)
    return subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, **options
    )


def test_no_sigpipe_even_where_it_kills():
    script = run_script(
        before="signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
        command="exec true",
        after="transport.exit_status(10)\n"
        "try: transport.send(b'x')\n"
        "except ReplicaLost: print('lost')\n"
        "transport.close()",
    )
    assert script.communicate(timeout=60)[0] == "lost\n"
    assert script.returncode == 0


def test_the_child_ends_when_its_parent_is_killed():
    script = run_script(after="print(transport.pid, flush=True); time.sleep(600)")
    try:
        process = int(script.stdout.readline())
        assert alive(process)
    finally:
        script.kill()
        script.communicate(timeout=60)
    wait_until(lambda: not alive(process))


def test_the_program_may_ignore_its_children():
    """SIG_IGN for SIGCHLD lets the kernel reap; the status is lost, nothing hangs."""
    script = run_script(
        before="signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        command="exit 3",
        after="print(transport.exit_status(10)); transport.close()",
    )
    assert script.communicate(timeout=60)[0] == "0\n"


# --- the local launcher ------------------------------------------------------------------------


def arguments_seen(target, arguments):
    command = "printf '%s|' a"
    with local.start(target, arguments, command=command, timeout_s=SOON) as transport:
        return read_all(transport).decode()


def test_arguments_are_quoted_for_the_shell():
    assert arguments_seen(HERE, ["--log-file", "a b;'c $HOME"]) == "a|--log-file|a b;'c $HOME|"


def test_the_target_s_directory_is_the_pool_set_directory():
    target = Target.parse("local:/pools/here")
    assert arguments_seen(target, ["-f"]) == "a|--poolset-dir|/pools/here|-f|"


def test_rpmemd_is_this_interpreter_s_own(tmp_path, monkeypatch):
    (tmp_path / "rpmemd.py").write_text("print('not me')")
    monkeypatch.chdir(tmp_path)
    with local.start(HERE, ["-V"], command=None, timeout_s=SOON) as transport:
        assert transport.argv[0] == sys.executable
        assert b"not me" not in read_all(transport)
        assert transport.peer_host == "127.0.0.1"


def test_sshd_s_words_about_this_process_are_not_handed_on(start, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    monkeypatch.setenv("KEPT", "yes")
    assert read_all(start("echo ${SSH_CONNECTION-none} $KEPT")) == b"none yes\n"


def test_causes_are_diagnosed(start):
    transport = start("no-such-rpmemd")
    assert transport.receive(4, SOON) == b""
    error = diagnose(transport)
    assert type(error) is DaemonMissing
    assert "no-such-rpmemd: command not found on this machine (exit 127)" in str(error)


# --- small parts -------------------------------------------------------------------------------


def test_tail_counts_what_it_forgets():
    tail = Tail(4)
    tail.append(b"abc")
    assert (tail.text(), tail.dropped) == ("abc", 0)
    tail.append(b"defg")
    assert (tail.text(), tail.dropped) == ("defg", 3)
    tail.append(b"\xff\r\n")
    assert tail.text() == "g�\n"


def test_deadline_without_a_limit_never_passes():
    deadline = Deadline(None)
    assert not deadline.passed
    assert deadline.left() is None
    assert deadline.left(2.0) == 2.0
    assert deadline.milliseconds() is None


def test_deadline_rounds_up_so_that_polling_does_not_spin():
    assert Deadline(0.0).milliseconds() == 0
    assert Deadline(0.0001).milliseconds() in (0, 1)
    assert 900 < Deadline(1.0).milliseconds() <= 1001
