"""Descriptors, processes and threads that run out: an error with cause and remedy, nothing left.

Descriptors that run out inside the files of a pool are the business of the tests of storage.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shlex
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import rpmem
from rpmem.base.remedies import remedy_for, shortage
from rpmem.errors import ConnectFailed, LaunchFailed, RpmemError
from rpmem.launch import child
from rpmem.session import channel as channels
from tests.support.traces import Traces

ROOT = Path(__file__).resolve().parents[2]

SIZE = 2 << 20
TIMEOUT = 20.0
# Whatever is short, nobody waits for the time-out to learn of it.
SOON = 8.0
RPMEMD = f"{shlex.quote(sys.executable)} -P -m rpmemd"


@contextmanager
def descriptors_left(count):
    """Leave this process so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count)]
    hoard = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max([*free, 64]) + 1, hard))
        with suppress(OSError):
            while True:
                hoard.append(os.dup(0))
        for descriptor in free:
            os.close(descriptor)
        free.clear()
        yield
    finally:
        for descriptor in free + hoard:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def create(tmp_path, lanes=2, **more):
    replica = rpmem.create(
        f"local:{tmp_path}", "a.set", bytearray(SIZE), lanes, parts=1, timeout=TIMEOUT, **more
    )
    replica.persist(8192, 64)
    return replica


def reopen(tmp_path, lanes=2, **more):
    replica = rpmem.open(
        f"local:{tmp_path}", "a.set", bytearray(SIZE), lanes, timeout=TIMEOUT, **more
    )
    replica.persist(8192, 64)
    return replica


def assert_explained(error):
    assert error.errno == errno.EMFILE
    assert re.search("Too many open files|shared object file: Error 24", str(error))
    assert "Traceback" not in str(error)
    assert "raise its limit" in str(error)


CALLS = {"create": create, "open": reopen}
#: Some numbers of descriptors, and all of them.
SOME = [("create", 1, (0, 4, 6, *range(8, 62, 4))), ("open", 4, range(1, 62, 4))]
WHOLE = [(call, lanes, range(61)) for call in CALLS for lanes in (1, 4)]
sizes = pytest.mark.parametrize(
    ("call", "lanes", "numbers"),
    [
        *(pytest.param(*each, id=f"{each[0]} {each[1]}") for each in SOME),
        *(pytest.param(*each, marks=pytest.mark.slow, id=f"all {each[:2]}") for each in WHOLE),
    ],
)


class Shortage:
    """Goes through numbers of free descriptors: success or the right error, soon, nothing left."""

    def __init__(self, path, call, lanes):
        self.path = path
        self.outcomes = {}
        self._call = lambda **more: CALLS[call](path, lanes, **more)
        create(path, lanes).close(remove=call == "create")  # what is loaded once is loaded
        self._before = Traces.now()
        self._files = sorted(os.listdir(path))

    def run(self, number, **more):
        begun = time.monotonic()
        try:
            self._call(**more).close(remove=not self._files)
        except RpmemError as error:
            assert_explained(error)
            self.outcomes[number] = False
        else:
            self.outcomes[number] = True
        assert time.monotonic() - begun < SOON, number

    def nothing_is_left(self):
        assert self._before.more() == ""
        assert sorted(os.listdir(self.path)) == self._files

    def assert_there_is_a_border(self):
        ends = list(self.outcomes.values())
        assert ends == sorted(ends), "success with fewer, but not with more"
        assert ends.count(False) > 3, "never too few"
        assert ends.count(True) > 4, "never enough"


@sizes
def test_descriptors_of_the_initiator(tmp_path, call, lanes, numbers):
    shortage = Shortage(tmp_path, call, lanes)
    for number in numbers:
        with descriptors_left(number):
            shortage.run(number)
        shortage.nothing_is_left()
    shortage.assert_there_is_a_border()


@sizes
def test_descriptors_of_the_daemon(tmp_path, call, lanes, numbers):
    """From too few to begin with, over too few for lanes, to enough."""
    shortage = Shortage(tmp_path, call, lanes)
    for number in numbers:
        shortage.run(number, command=f"ulimit -n {3 + number}; exec {RPMEMD}")
        shortage.nothing_is_left()
    shortage.assert_there_is_a_border()


def test_the_daemon_takes_what_it_may_have(tmp_path):
    """A soft limit is not what the administrator has set a limit to."""
    with create(tmp_path, command=f"ulimit -S -n 20; exec {RPMEMD}") as replica:
        replica.persist(8192, 64)


@pytest.fixture
def threads_fail(monkeypatch):
    """Return what lets no thread start whose name begins like that."""

    def let_fail(prefix):
        start = threading.Thread.start

        def refuse(thread):
            if thread.name.startswith(prefix):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)

    return let_fail


@pytest.mark.parametrize("name", ["rpmem stderr", "rpmem local:"])
def test_threads_of_the_initiator(tmp_path, threads_fail, name):
    before = Traces.now()
    threads_fail(name)
    with pytest.raises(LaunchFailed, match="ulimit -u") as caught:
        create(tmp_path)
    assert caught.value.errno == errno.EAGAIN
    assert before.more() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["accept", "lanes"])
def test_threads_of_the_daemon(tmp_path, name):
    script = tmp_path / "few_threads.py"
    script.write_text(
        "import sys, threading\n"
        "start = threading.Thread.start\n"
        "def refuse(thread):\n"
        f"    if thread.name.startswith({name!r}):\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    start(thread)\n"
        "threading.Thread.start = refuse\n"
        "from rpmemd.__main__ import main\n"
        "sys.exit(main())\n"
    )
    (tmp_path / "node").mkdir()
    command = f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} {script}"
    with pytest.raises(RpmemError, match="ulimit -u") as caught:
        create(tmp_path / "node", command=command)
    assert caught.value.errno == errno.EAGAIN
    if name == "accept":  # the others are started when the pool is there and its lanes are
        assert list((tmp_path / "node").iterdir()) == []


def test_processes(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(child.subprocess, "Popen", refuse)
    before = Traces.now()
    with pytest.raises(LaunchFailed, match="ulimit -u") as caught:
        create(tmp_path)
    assert caught.value.errno == errno.EAGAIN
    assert before.more() == ""


def test_what_is_a_shortage():
    assert shortage(OSError(errno.EMFILE, "x")) == errno.EMFILE
    assert shortage(OSError(errno.ENOENT, "x")) is None
    assert shortage(MemoryError()) == errno.ENOMEM
    assert shortage(RuntimeError("can't start new thread")) == errno.EAGAIN
    assert shortage(RuntimeError("anything else")) is None
    assert shortage(ConnectFailed("x", errno=errno.EMFILE)) == errno.EMFILE
    assert remedy_for(errno.ENOENT) is None
    assert remedy_for(None) is None
    assert channels.shortage is shortage


# --- rpmemd's standard streams -----------------------------------------------------------------


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"])
def test_without_stdin_or_stdout_rpmemd_does_not_begin(tmp_path, closed):
    """A log or a part must not be opened under the number of a stream."""
    log = tmp_path / "log"
    command = f"exec {RPMEMD} --log-file {log} --log-level debug --poolset-dir {tmp_path} {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=ROOT, input=b"", capture_output=True, timeout=30
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    if "2>&-" not in closed:
        assert b"stdin and stdout must be open" in done.stderr
    assert not log.exists() or log.read_bytes() == b""


def test_without_stderr_rpmemd_serves(tmp_path):
    with create(tmp_path, command=f"exec 2>&-; exec {RPMEMD}") as replica:
        replica.persist(8192, 64)


def test_streams_that_do_not_wait(tmp_path):
    """Whoever shares them may have switched waiting off."""
    switch = (
        "import fcntl, os\n"
        "for number in (0, 1):\n"
        "    flags = fcntl.fcntl(number, fcntl.F_GETFL)\n"
        "    fcntl.fcntl(number, fcntl.F_SETFL, flags | os.O_NONBLOCK)\n"
        "from rpmemd.__main__ import main\n"
        "raise SystemExit(main())\n"
    )
    command = f"PYTHONPATH={ROOT} {shlex.quote(sys.executable)} -c {shlex.quote(switch)}"
    with create(tmp_path, command=command) as replica:
        replica.persist(8192, 64)
