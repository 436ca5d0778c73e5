"""Death and silence: who waits is told, in time and with the cause; who dies leaves nothing."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import rpmem
from rpmem.errors import (
    ClosedError,
    DeadlineExceeded,
    ForkedError,
    LaunchError,
    ReplicaLost,
    RpmemError,
)
from tests.support import fabrics, hanging_rpmemd
from tests.support.fabrics import TCP
from tests.support.lowtier import await_failure
from tests.support.media import wait_unlocked
from tests.support.processes import stop, wait_gone
from tests.support.raw_session import RawSession
from tests.support.targets import ATTRIBUTES, Node
from tests.support.traces import Traces

pytestmark = pytest.mark.usefixtures("each_fabric")

ROOT = Path(__file__).resolve().parents[2]
SIZE = 4 << 20
PAGE = 4096
#: The issue's: whoever waits for a target that died knows it by then.
WOKEN = 2.0
#: For everything to which no number was promised; this machine may be busy.
HANGS = 60.0


@pytest.fixture
def node(tmp_path):
    return Node.local(tmp_path / "node")


@pytest.fixture(params=["local", "openssh", "paramiko"])
def every_node(request, tmp_path):
    if request.param == "local":
        return Node.local(tmp_path / "node")
    host = request.getfixturevalue("ssh_node")
    return Node.over_ssh(tmp_path / "node", host, request.param)


class Waiters:
    """Threads that call something until it fails."""

    def __init__(self, calls):
        self.errors = {}
        self.threads = [
            threading.Thread(target=self._work, args=(number, call), daemon=True)
            for number, call in enumerate(calls)
        ]
        self.begun = [0] * len(self.threads)
        for thread in self.threads:
            thread.start()

    def _work(self, number, call):
        try:
            while True:
                self.begun[number] += 1
                call()
        except BaseException as error:
            self.errors[number] = (time.monotonic(), error.with_traceback(None))

    def await_waiting(self):
        """Wait until nobody gets on any more."""
        before = None
        deadline = time.monotonic() + HANGS
        while before != self.begun or not all(self.begun):
            assert time.monotonic() < deadline
            before = list(self.begun)
            time.sleep(0.2)

    def join(self, since):
        """Wait for all; return the errors and how long the last one took."""
        for thread in self.threads:
            thread.join(HANGS)
            assert not thread.is_alive(), "a thread hangs"
        return (
            [error for _, error in self.errors.values()],
            max(at for at, _ in self.errors.values()) - since,
        )


def calls_of(replica):
    """Return one call of every kind that waits for the target."""
    return [
        lambda: replica.persist(PAGE, 64),
        lambda: replica.persist(PAGE, 1 << 20),
        lambda: replica.persist(PAGE, 1 << 20, relaxed=True),
        lambda: replica.persist_many([(PAGE, 64), (5 * PAGE, 9)]),
        lambda: (replica.flush(PAGE, 100_000), replica.drain()),
        lambda: replica.deep_persist(PAGE, 64),
        lambda: replica.read(bytearray(1 << 16), PAGE),
        lambda: replica.read(bytearray(8), 0),
    ]


# --- a target that dies ------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 3, 8], ids=["waiting-for-a-lane", "both", "in-flight"])
def test_every_waiter_is_woken_with_the_cause(node, lanes):
    replica = node.create(bytearray(SIZE), nlanes=lanes)
    stop(replica.peer.pid)
    waiters = Waiters(calls_of(replica))
    waiters.await_waiting()
    killed = time.monotonic()
    os.kill(replica.peer.pid, signal.SIGKILL)
    errors, woken = waiters.join(killed)
    assert woken < WOKEN
    for error in errors:
        assert type(error) is ReplicaLost
        assert isinstance(error, ConnectionError)
        assert "signal 9" in str(error)
        assert node.target in str(error)
    # From now on every call says so at once, and closing is no trouble.
    begun = time.monotonic()
    for call in calls_of(replica):
        with pytest.raises(ReplicaLost, match="signal 9"):
            call()
    with pytest.raises(ReplicaLost):
        replica.set_attributes(ATTRIBUTES)
    assert isinstance(replica.failure, ReplicaLost)
    assert "lost" in repr(replica)
    replica.close()
    assert time.monotonic() - begun < 10.0
    wait_unlocked(node.directory / "a.set")


def test_waiters_of_a_remote_target(every_node):
    """Killed in full swing, over ssh as well."""
    replica = every_node.create(bytearray(SIZE), nlanes=4)
    waiters = Waiters(calls_of(replica))
    deadline = time.monotonic() + HANGS
    while min(waiters.begun) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed = time.monotonic()
    os.kill(replica.peer.pid, signal.SIGKILL)
    errors, woken = waiters.join(killed)
    assert woken < WOKEN
    for error in errors:
        assert type(error) is ReplicaLost
        assert every_node.target in str(error)
    replica.close()
    wait_unlocked(every_node.directory / "a.set")
    every_node.open(bytearray(SIZE)).close()


# A core dump too: by a signal that no sanitizer takes for a fault of the program.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGABRT, signal.SIGINT])
def test_other_ways_to_die(node, number):
    with node.create(bytearray(SIZE)) as replica:
        replica.persist(PAGE, 8)
        os.kill(replica.peer.pid, number)
        error = await_failure(replica)
        assert type(error) is ReplicaLost
        with pytest.raises(ReplicaLost):
            replica.persist(PAGE, 8)
    wait_unlocked(node.directory / "a.set")


def test_the_transport_dies_and_the_target_with_it(tmp_path, ssh_node):
    """ssh is killed, not rpmemd: both sides find out."""
    node = Node.over_ssh(tmp_path / "node", ssh_node, "openssh")
    with node.create(bytearray(SIZE)) as replica:
        waiters = Waiters(calls_of(replica)[:3])
        killed = time.monotonic()
        replica._channel.transport.kill()
        errors, woken = waiters.join(killed)
        assert woken < WOKEN
        assert all(type(error) is ReplicaLost for error in errors)
    wait_unlocked(node.directory / "a.set")


@pytest.mark.parametrize("provider", ["stream", TCP])
def test_a_session_that_fails_while_lanes_connect(node, provider):
    """Not only the lanes are watched, but also what the control session says."""
    broken = node.create(bytearray(SIZE), "warm.set")
    broken.close(remove=True)
    begun = time.monotonic()
    with pytest.raises(RpmemError, match="out of lanes") as caught:
        node.create(
            bytearray(SIZE),
            command=fabrics.over_tcp(hanging_rpmemd.command("broken-lanes")),
            timeout=60.0,
            provider=provider,
        )
    assert time.monotonic() - begun < 20.0
    assert str(caught.value).count(node.target) == 1
    assert node.files() == []


def test_what_the_target_said_last_is_in_the_error(node):
    """Its log comes home, and so do its last words."""
    script = "import sys, time; time.sleep(0.2); print('out of cheese', file=sys.stderr)"
    command = f'{sys.executable} -c "{script}"'
    with pytest.raises(LaunchError, match="out of cheese"):
        node.create(bytearray(SIZE), command=command)


def test_one_dead_replica_of_two_leaves_the_other(tmp_path):
    nodes = [Node.local(tmp_path / f"node{number}") for number in range(2)]
    specs = [f"{node.target} a.set" for node in nodes]
    memory = np.zeros(SIZE // 8)
    with rpmem.Pool.create(memory, replicas=specs, parts=1, timeout=30.0) as pool:
        words = pool.array("words", 1000)
        words[:] = 1
        stop(pool.replicas[0].peer.pid)
        waiters = Waiters([lambda: pool.persist(words)] * 3)
        waiters.await_waiting()
        killed = time.monotonic()
        os.kill(pool.replicas[0].peer.pid, signal.SIGKILL)
        errors, woken = waiters.join(killed)
        assert woken < WOKEN
        assert all(type(error) is ReplicaLost for error in errors)
        assert all(nodes[0].target in str(error) for error in errors)
        assert pool.replicas[1].failure is None
        pool.detach(0)
        words[:] = 2
        pool.persist(words)
        assert (pool.read(words) == 2).all()


# --- a target that is silent -------------------------------------------------------------------


@dataclass
class Silence:
    """What came of a call that got no answer.

    Parameters
    ----------
    error : RpmemError or None
        What it raised.
    seconds : float
        How long it took.
    ending : float
        How long everything took, closing included.
    failure : RpmemError or None
        What the replica knows afterwards.
    """

    target: str
    files: list[str]
    error: RpmemError | None
    seconds: float
    ending: float
    failure: RpmemError | None = None


def all_at_once(work, keys):
    """Call `work(key)` for all keys in threads; return the results by key."""
    with ThreadPoolExecutor(len(keys)) as threads:
        return dict(zip(keys, threads.map(work, keys), strict=True))


KINDS_OF_CALLS = range(8)


@pytest.fixture(scope="module")
def given_up(tmp_path_factory):
    """Every kind of call on a target that was stopped; the calls wait side by side."""

    def work(which):
        node = Node.local(tmp_path_factory.mktemp("stopped") / "node")
        replica = node.create(bytearray(SIZE), timeout=2.0)
        stop(replica.peer.pid)
        begun, error = time.monotonic(), None
        try:
            calls_of(replica)[which]()
        except RpmemError as caught:
            error = caught
        seconds, failure = time.monotonic() - begun, replica.failure
        with contextlib.suppress(RpmemError):
            replica.close()
        ending = time.monotonic() - begun
        wait_unlocked(node.directory / "a.set")
        return Silence(node.target, node.files(), error, seconds, ending, failure)

    return all_at_once(work, KINDS_OF_CALLS)


@pytest.mark.xdist_group("given_up")
@pytest.mark.parametrize("which", KINDS_OF_CALLS)
def test_a_stopped_target_is_given_up_at_the_deadline(given_up, which):
    silence = given_up[which]
    assert isinstance(silence.error, DeadlineExceeded)
    assert isinstance(silence.error, TimeoutError)
    assert 1.9 < silence.seconds < 20.0
    assert silence.ending < 40.0
    assert silence.target in str(silence.error)
    assert "2 s" in str(silence.error)
    assert isinstance(silence.failure, DeadlineExceeded)


def test_waiting_for_a_lane_ends_at_the_deadline_too(node):
    replica = node.create(bytearray(SIZE), nlanes=1, timeout=1.0)
    stop(replica.peer.pid)
    begun = time.monotonic()
    waiters = Waiters([lambda: replica.persist(PAGE, 64)] * 4)
    errors, _ = waiters.join(begun)
    assert all(isinstance(error, DeadlineExceeded) for error in errors)
    replica.close()


def test_a_short_stop_is_only_a_delay(node):
    with node.create(bytearray(SIZE), timeout=30.0) as replica:
        stop(replica.peer.pid)
        threading.Timer(0.5, os.kill, (replica.peer.pid, signal.SIGCONT)).start()
        replica.persist(PAGE, 1 << 20)
        replica.persist(PAGE, 64)


@pytest.fixture(scope="module")
def unanswered(tmp_path_factory):
    """Daemons that hang at every point of a session; all are waited for side by side."""
    before = Traces.now()

    def work(point):
        node = Node.local(tmp_path_factory.mktemp(point) / "node")
        options = {"timeout": 2.0, "command": hanging_rpmemd.command(point)}
        replica, error, begun = None, None, time.monotonic()
        try:
            replica = node.create(bytearray(SIZE), **options)
            begun = time.monotonic()
            if point == "attributes":
                replica.set_attributes(ATTRIBUTES)
            replica.close()
        except RpmemError as caught:
            error = caught
        seconds = time.monotonic() - begun
        if replica is not None:
            with contextlib.suppress(RpmemError):
                replica.close()
        ending = time.monotonic() - begun
        if (node.directory / "a.set").exists():
            wait_unlocked(node.directory / "a.set")
        return Silence(node.target, node.files(), error, seconds, ending)

    silences = all_at_once(work, hanging_rpmemd.POINTS)
    assert not before.more()
    return silences


@pytest.mark.xdist_group("unanswered")
@pytest.mark.parametrize("point", hanging_rpmemd.POINTS)
def test_every_wait_for_an_answer_has_a_deadline(unanswered, point):
    silence = unanswered[point]
    assert isinstance(silence.error, DeadlineExceeded)
    assert 1.9 < silence.seconds < 30.0
    assert silence.ending < 40.0
    assert silence.target in str(silence.error) or "on this machine" in str(silence.error)
    assert "2 s" in str(silence.error)
    if point in ("start", "hello", "create"):
        assert silence.files == []


def test_removing_has_a_deadline(node):
    command = hanging_rpmemd.command("start")
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="1 s"):
        node.remove(timeout=1.0, command=command)
    assert time.monotonic() - begun < 30.0


def test_closing_a_stopped_target_ends(node):
    replica = node.create(bytearray(SIZE), timeout=1.0)
    stop(replica.peer.pid)
    begun = time.monotonic()
    with contextlib.suppress(RpmemError):
        replica.close()
    assert time.monotonic() - begun < 30.0
    assert replica.closed
    wait_unlocked(node.directory / "a.set")


# --- an initiator that dies --------------------------------------------------------------------


def test_a_session_whose_lanes_never_came_leaves_no_parts(tmp_path):
    with RawSession(tmp_path) as session:
        assert (tmp_path / "a.set.part0").exists()
        pid = session.pid
    wait_gone(pid)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_that_was_there_before_stays_when_lanes_never_come(tmp_path):
    node = Node.local(tmp_path / "node")
    node.create(bytearray(SIZE)).close()
    with RawSession(node.directory, create=False, size=PAGE):
        pass
    wait_unlocked(node.directory / "a.set")
    assert node.files() == ["a.set", "a.set.part0"]


def test_a_lane_whose_other_end_died_shows_a_fault(tmp_path):
    """By itself: not because the control session says so."""
    with RawSession(tmp_path) as session:
        lane = session.lane()
        os.kill(session.pid, signal.SIGKILL)
        assert session.wait(lane) == ("fault", b"")


def test_an_initiator_that_dies_halfway_leaves_no_parts(tmp_path):
    """It dies between the target's answer and its first lane."""
    code = f"""
        import os, signal
        from pathlib import Path
        from tests.support.raw_session import RawSession
        RawSession(Path({str(tmp_path)!r}), lanes=3)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(code).returncode == -signal.SIGKILL
    deadline = time.monotonic() + HANGS
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_that_was_created_stays_when_its_initiator_dies_at_once(tmp_path):
    """Its lanes were connected, even if the target has not looked at the last one yet."""
    script = tmp_path / "slow_rpmemd.py"
    script.write_text(
        textwrap.dedent("""
            import sys, time
            from rpmemd.lane_server import LaneServer
            serve = LaneServer._serve
            LaneServer._serve = lambda lanes: (time.sleep(0.3), serve(lanes))
            from rpmemd.__main__ import main
            sys.exit(main())
        """)
    )
    command = f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} {script}"
    node = Node.local(tmp_path / "node")
    replica = node.create(bytearray(SIZE), command=command)
    pid = replica.peer.pid
    replica.drop()
    wait_gone(pid)
    assert node.files() == ["a.set", "a.set.part0"]


def run_python(code):
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=HANGS,
    )


def test_a_replica_that_was_lost_and_forgotten_is_collected(node):
    """Nobody closes it: its parts come apart in whatever order the collector likes."""
    node.create(bytearray(SIZE)).close()
    code = f"""
        import gc, os, rpmem, signal, time
        from tests.support.lowtier import await_failure
        for _ in range(3):
            replica = rpmem.open({node.target!r}, "a.set", bytearray({SIZE}), 3)
            replica.persist(4096, 64)
            os.kill(replica.peer.pid, signal.SIGKILL)
            await_failure(replica)
            del replica
            for _ in range(5):
                gc.collect()
                time.sleep(0.02)
    """
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")


# --- forks -------------------------------------------------------------------------------------


def in_child(work):
    """Run something in a forked process; return its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work() or 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + HANGS
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def forked_errors(replica):
    calls = [*calls_of(replica), replica.drain, replica.close]
    calls += [lambda: replica.flush(PAGE, 8), lambda: replica.set_attributes(ATTRIBUTES)]
    count = 0
    for call in calls:
        try:
            call()
        except ForkedError as error:
            count += "parent" in str(error)
    return 0 if count == len(calls) else 1


def test_a_forked_child_is_told(node):
    with node.create(bytearray(SIZE)) as replica:
        assert in_child(lambda: forked_errors(replica)) == 0
        replica.persist(PAGE, 64)
        assert replica.failure is None


def drop_all(replica):
    replica.__exit__(None, None, None)
    for found in gc.get_objects():
        if type(found).__name__ in ("FabricLane", "LaneGroup"):
            found.close()


@pytest.mark.parametrize("how", ["closing", "collecting", "waiting-calls"])
def test_a_child_s_end_does_not_disturb_the_parent(node, how):
    buffer = bytearray(SIZE)
    with node.create(buffer, nlanes=2) as replica:
        waiters = None
        stop = threading.Event()
        if how == "waiting-calls":

            def work():
                if stop.is_set():
                    raise ClosedError("enough")
                replica.persist(PAGE, 100_000)

            waiters = Waiters([work] * 3)
        for _ in range(5):
            status = in_child(
                lambda: (drop_all(replica) if how == "closing" else gc.collect()) and 0
            )
            assert status == 0
            replica.persist(PAGE, 64)
            got = bytearray(8)
            replica.read(got, PAGE)
        stop.set()
        if waiters:
            errors, _ = waiters.join(time.monotonic())
            assert all(type(error) is ClosedError for error in errors)
        assert replica.failure is None


def test_a_child_that_ends_like_any_program(node):
    """With atexit handlers, destructors and all, while the parent goes on."""
    code = f"""
        import os, sys, rpmem
        from tests.support.targets import ATTRIBUTES
        replica = rpmem.create({node.target!r}, "a.set", bytearray({SIZE}), parts=1,
                               attributes=ATTRIBUTES, timeout=10.0)
        replica.persist(4096, 64)
        for _ in range(3):
            if os.fork() == 0:
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
            replica.persist(4096, 64)
            replica.read(bytearray(64), 4096)
        replica.close()
        print("done")
    """
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_child_can_have_sessions_of_its_own(node):
    node.create(bytearray(SIZE), "child.set").close()

    def work():
        with node.open(bytearray(SIZE), "child.set") as mine:
            mine.persist(PAGE, 64)
        return 0

    with node.create(bytearray(SIZE)) as replica:
        assert in_child(work) == 0
        replica.persist(PAGE, 64)


# --- closing under the feet of others ----------------------------------------------------------


def test_close_while_others_persist(node):
    """Whatever is on its way is done; whatever comes later is told."""
    chance = random.Random(3)
    node.create(bytearray(SIZE)).close()
    for _ in range(8):
        replica = node.open(bytearray(SIZE), nlanes=2)
        waiters = Waiters([*calls_of(replica), lambda r=replica: r.persist_many(slowly())])
        time.sleep(chance.random() * 0.05)
        replica.close()
        errors, _ = waiters.join(time.monotonic())
        for error in errors:
            assert type(error) is ClosedError, error
        assert len(errors) == 9


def slowly():
    for offset in range(PAGE, 10 * PAGE, PAGE):
        time.sleep(0.001)
        yield offset, 64


def test_close_from_several_threads(node):
    replica = node.create(bytearray(SIZE), nlanes=2)
    waiters = Waiters([*calls_of(replica)[:3], *[lambda: (replica.close(), 1 / 0)] * 4])
    errors, _ = waiters.join(time.monotonic())
    assert {type(error) for error in errors} == {ClosedError, ZeroDivisionError}
    wait_unlocked(node.directory / "a.set")


def test_close_while_the_target_dies(node):
    node.create(bytearray(SIZE)).close()
    for number in range(6):
        replica = node.open(bytearray(SIZE), nlanes=2)
        waiters = Waiters(calls_of(replica))
        time.sleep(0.01 * number)
        os.kill(replica.peer.pid, signal.SIGKILL)
        with contextlib.suppress(ReplicaLost):
            replica.close()
        errors, woken = waiters.join(time.monotonic())
        assert woken < 10.0
        for error in errors:
            assert isinstance(error, ReplicaLost | ClosedError), error
        wait_unlocked(node.directory / "a.set")
