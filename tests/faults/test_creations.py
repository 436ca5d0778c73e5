"""Creations and restores that race each other, or are killed at every call that changes a file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("rpmem.memory.region", reason="rpmem.memory.region is not built")

import rpmem
from rpmem import PoolAttributes, Target, errors
from rpmem.base.environment import Environment
from rpmem.control.initiator import InitiatorSession
from rpmem.control.messages import Create, Hello, Ready
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import Part, PoolSet, load_any
from rpmem.files.removal import remove_parts
from rpmem.launch import launch
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.local import FilePlace
from rpmem.session.channel import Channel
from rpmemd.database import Database

SIZE = 2 << 20
ATTRIBUTES = PoolAttributes(signature=b"TESTPOOL", major=1)
LOST = (errors.PoolSetExists, errors.PoolSetBusy)


@pytest.fixture
def folder(tmp_path):
    """Return a directory in memory where there is one: what is killed here waits for no disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pool_set(folder: Path, count: int = 3) -> PoolSet:
    return PoolSet([Part(SIZE, f"{folder}/part{index}") for index in range(count)])


# --- who comes first --------------------------------------------------------------------------


class Daemon:
    """An rpmemd that has been greeted, and waits for its one request."""

    def __init__(self, directory: Path) -> None:
        target = Target.parse(f"local:{directory}")
        self.transport = launch(target, [], environment=Environment.read(), timeout_s=30.0)
        self.channel = Channel(
            self.transport,
            InitiatorSession(Hello.of_this_process("test"), where=str(target)),
            where=str(target),
            timeout_s=30.0,
            on_failure=lambda error: None,
        )
        self.channel.greet()

    def create(self, name: str) -> Ready:
        return self.channel.create(
            Create(
                pool_set=name,
                pool_size=SIZE,
                lanes=1,
                providers=("tcp",),
                message_size=1 << 16,
                step="auto",
                attributes=ATTRIBUTES.pack(),
                parts=2,
            )
        )


def ask(daemon: Daemon, name: str, start: threading.Barrier) -> Ready | errors.RpmemError:
    start.wait()
    try:
        return daemon.create(name)
    except errors.RpmemError as error:
        return error


@pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_one_of_several_daemons_wins(tmp_path, rounds):
    """They have all been greeted, and get the same request at the same moment."""
    for turn in range(rounds):
        name = f"{turn}.set"
        daemons = [Daemon(tmp_path) for _ in range(3)]
        with ThreadPoolExecutor(len(daemons)) as threads:
            start = threading.Barrier(len(daemons))
            asked = [threads.submit(ask, daemon, name, start) for daemon in daemons]
        outcomes = {each: future.result() for each, future in zip(daemons, asked, strict=True)}
        winners = [each for each in daemons if isinstance(outcomes[each], Ready)]
        assert len(winners) == 1, outcomes
        losers = [error for error in outcomes.values() if not isinstance(error, Ready)]
        assert all(isinstance(error, LOST) for error in losers), losers
        winners[0].channel.close(remove=False)
        for daemon in daemons:
            daemon.transport.close()
        assert names(tmp_path) == [name, f"{name}.part0", f"{name}.part1"]
        assert [part.size for part in load_any(tmp_path / name).parts] == [SIZE, SIZE]
        database = Database(str(tmp_path))
        database.open(name).close()
        database.remove(name, pool_set=True)
        assert names(tmp_path) == []


def published(copy):
    try:
        copy.publish()
    except BaseException:
        copy.close(remove=True)
        raise
    return copy


def _race(work, start, done, results):
    for turn in range(20):
        start.wait()
        pool = outcome = None
        try:
            pool = work(turn)
        except errors.RpmemError as error:
            outcome = type(error).__name__
        results.put((turn, outcome))
        done.wait()
        if pool is not None:
            pool.close()


def race(work) -> dict[int, list[str | None]]:
    """Let three processes do the same twenty times; return what came of each time."""
    context = multiprocessing.get_context("fork")
    start, done, results = context.Barrier(3), context.Barrier(3), context.Queue()
    children = [context.Process(target=_race, args=(work, start, done, results)) for _ in range(3)]
    for child in children:
        child.start()
    told = [results.get(timeout=60) for _ in range(60)]
    for child in children:
        child.join(60)
    return {turn: [outcome for at, outcome in told if at == turn] for turn in range(20)}


@pytest.mark.parametrize("kind", ["file", "parts", "zeroed", "database", "written", "restore"])
def test_one_of_several_processes_wins(folder, kind):
    if kind == "written":
        for turn in range(20):
            (folder / f"{turn}.set").write_text(pool_set(folder / str(turn), 2).format())
    for turn in range(20):
        (folder / str(turn)).mkdir()
        if kind == "zeroed":
            (folder / str(turn) / "part1").write_bytes(bytes(SIZE))

    def work(turn):
        here = folder / str(turn)
        if kind == "file":
            return published(FilePlace(here / "p").create(SIZE, ATTRIBUTES))
        if kind == "database":
            return Database(str(here)).create("a.set", SIZE, ATTRIBUTES, parts=2)
        if kind == "written":
            return published(FilePlace(folder / f"{turn}.set").create(None, ATTRIBUTES))
        if kind == "restore":
            return published(FilePlace(here / "p").create_hidden(SIZE, ATTRIBUTES))
        return PoolFiles.create(pool_set(here), attributes=ATTRIBUTES)

    for turn, outcomes in race(work).items():
        assert Counter(outcomes)[None] == 1, (turn, outcomes)
        assert set(outcomes) <= {None, "PoolSetExists", "PoolSetBusy"}
        left = {
            "file": ["p"],
            "restore": ["p"],
            "database": ["a.set", "a.set.part0", "a.set.part1"],
            "written": ["part0", "part1"],
        }
        assert names(folder / str(turn)) == left.get(kind, ["part0", "part1", "part2"])


def test_a_removal_waits_for_nobody_who_loses(folder):
    """Create and remove the same set from several processes: whoever creates has its set file."""
    database = Database(str(folder))
    context = multiprocessing.get_context("fork")

    def work(results):
        wrong = 0
        for _ in range(20):
            with suppress(*LOST, errors.PoolSetNotFound):
                pool = database.create("a.set", SIZE, ATTRIBUTES, parts=2)
                wrong += not (folder / "a.set").exists()
                pool.close(remove=True)
            with suppress(*LOST, errors.PoolSetNotFound, errors.HeaderError):
                database.create("a.set", SIZE, ATTRIBUTES, parts=2).close()
                with suppress(*LOST, errors.PoolSetNotFound):
                    database.remove("a.set", pool_set=True)
        results.put(wrong)

    results = context.Queue()
    children = [context.Process(target=work, args=[results]) for _ in range(3)]
    for child in children:
        child.start()
    assert [results.get(timeout=120) for _ in children] == [0, 0, 0]
    for child in children:
        child.join(60)
        assert child.exitcode == 0


# --- killed at every call ---------------------------------------------------------------------

_CALLS = (
    "open", "link", "unlink", "fsync", "fdatasync", "pwrite", "posix_fallocate", "fchmod",
)  # fmt: skip


def killed_at(nth: int, work) -> bool:
    """Run `work` in a child that dies before its nth call that matters; tell whether it did."""
    pid = os.fork()
    if pid == 0:
        calls = 0

        def dying(real):
            def call(*arguments, **named):
                nonlocal calls
                calls += 1
                if calls == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **named)

            return call

        for name in _CALLS:
            setattr(os, name, dying(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def every_kill(work):
    """Yield after each kill, until `work` gets through."""
    for nth in range(1, 200):
        if not killed_at(nth, work):
            assert nth > 10
            return
        yield nth
    pytest.fail("it never got through")


def test_a_creation_that_was_killed_can_be_begun_again(folder):
    wanted = pool_set(folder)
    complete = 0
    for nth in every_kill(lambda: PoolFiles.create(wanted, attributes=ATTRIBUTES)):
        try:
            PoolFiles.create(wanted, attributes=ATTRIBUTES).close()
        except errors.PoolSetExists:
            complete += 1  # it was made, all but for the last hidden names
            PoolFiles.open(wanted).close()
        assert names(folder) == ["part0", "part1", "part2"], nth
        PoolFiles.open(wanted).close()
        remove_parts(wanted)
        assert names(folder) == []
    assert 0 < complete < 8


def test_a_creation_that_was_killed_can_be_removed(folder):
    wanted = pool_set(folder)
    for nth in every_kill(lambda: PoolFiles.create(wanted, attributes=ATTRIBUTES)):
        remove_parts(wanted, force=True)
        assert names(folder) == [], nth


def test_a_provision_that_was_killed_can_be_begun_again(folder):
    database = Database(str(folder))
    complete = 0
    for nth in every_kill(lambda: database.create("a.set", SIZE, ATTRIBUTES, parts=2)):
        try:
            database.create("a.set", SIZE, ATTRIBUTES, parts=2).close()
        except errors.PoolSetExists:
            complete += 1
        database.open("a.set").close()
        present = [name for name in names(folder) if not name.startswith(".a.set.rpmem-")]
        assert present == ["a.set", "a.set.part0", "a.set.part1"], nth
        database.remove("a.set", pool_set=True)
        assert names(folder) == []
    assert 0 < complete < 8


def filled(copy) -> None:
    with memoryview(copy.region) as view:
        view[8192:8197] = b"hello"


@pytest.mark.parametrize("count", [1, 3])
def test_a_restore_that_was_killed_can_be_begun_again(folder, count):
    file = folder / "p.set"
    file.write_text(pool_set(folder, count).format())
    parts = [f"part{index}" for index in range(count)]

    def restore():
        copy = FilePlace(file).create_hidden(SIZE, ATTRIBUTES)
        filled(copy)
        copy.publish()
        return copy

    complete = 0
    for nth in every_kill(restore):
        named = (folder / "part0").exists()
        if named:
            # Whatever has its first name has all of them, and all of the data.
            with PoolFiles.open(load_any(file)) as pool, memoryview(pool.region) as view:
                assert bytes(view[8192:8197]) == b"hello"
            with pytest.raises(errors.PoolSetExists):
                restore()
            complete += 1
        else:
            restore().close()
        assert names(folder) == ["p.set", *parts], nth
        remove_parts(load_any(file))
    assert 0 < complete < 10


def test_a_pool_in_use_is_never_taken_for_left_behind(tmp_path):
    """A pool whose last hidden name stayed, because its maker was killed, and that was used."""
    wanted = pool_set(tmp_path, 2)
    PoolFiles.create(wanted, attributes=ATTRIBUTES).close()
    for name in ("part0", "part1"):
        os.link(tmp_path / name, tmp_path / f".{name}.rpmem-0123abcd")
    with PoolFiles.open(wanted):
        assert names(tmp_path) == ["part0", "part1"]
    with pytest.raises(errors.PoolSetExists):
        PoolFiles.create(wanted, attributes=ATTRIBUTES)


def test_other_hidden_files_stay(tmp_path):
    wanted = pool_set(tmp_path, 1)
    others = [".part0.rpmem-0123456", ".part0.rpmem-0123abcde", ".part0", ".part0.rpmem-XXXXXXXX"]
    for name in others:
        (tmp_path / name).write_bytes(b"somebody's")
    busy = tmp_path / ".part0.rpmem-01234567"
    busy.write_bytes(b"")
    with busy.open("r+b") as file:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
        PoolFiles.create(wanted, attributes=ATTRIBUTES).close(remove=True)
        assert names(tmp_path) == sorted([*others, busy.name])
    PoolFiles.create(wanted, attributes=ATTRIBUTES).close(remove=True)
    assert names(tmp_path) == sorted(others)


def test_restoring_again_through_the_whole_way(tmp_path):
    (tmp_path / "node").mkdir()
    replica = f"local:{tmp_path / 'node'} a.set"
    with rpmem.Pool.create(tmp_path / "p", "4MiB", replica, parts=1) as pool:
        pool.array("x", 9, "i8")[:] = range(9)
        pool.persist()
    file = tmp_path / "r.set"
    file.write_text(PoolSet([Part(SIZE + 8192, f"{tmp_path}/r{i}") for i in range(2)]).format())

    def restore():
        real = os.link

        def link(*arguments):
            real(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        os.link = link
        rpmem.Pool.restore(file, replica)

    assert killed_at(-1, restore)
    assert not (tmp_path / "r0").exists()
    assert (tmp_path / "r1").exists()
    with rpmem.Pool.restore(file, replica) as pool:
        assert pool["x"].tolist() == list(range(9))
    assert names(tmp_path) == ["node", "p", "r.set", "r0", "r1"]


def test_a_creation_in_directories_that_was_killed_can_be_begun_again(folder):
    for name in ("a", "b"):
        (folder / name).mkdir()
    wanted = PoolSet(
        [Part(SIZE, f"{folder}/a"), Part(SIZE, f"{folder}/b")], options=frozenset({"SINGLEHDR"})
    )
    given = ATTRIBUTES.for_options({"SINGLEHDR"})
    complete = 0
    for nth in every_kill(lambda: PoolFiles.create(wanted, attributes=given)):
        try:
            PoolFiles.create(wanted, attributes=given).close()
        except errors.PoolSetExists:
            complete += 1
        with PoolFiles.open(wanted) as pool:
            assert pool.size == 2 * SIZE
        assert names(folder / "a") == ["000000.pmem"], nth
        assert names(folder / "b") == ["000001.pmem"], nth
        remove_parts(wanted)
    assert 0 < complete < 8


def test_a_pool_that_was_killed_before_it_was_one_can_be_created_again(folder):
    """Its header is there, and not yet its catalogue: nothing that could be opened."""

    def create():
        def format(*_, **__):
            os.kill(os.getpid(), signal.SIGKILL)

        Catalogue.format = format
        rpmem.Pool.create(folder / "p", SIZE)

    assert killed_at(-1, create)
    assert (folder / "p").read_bytes()[:8] == b"RPMEMPY1"
    with rpmem.Pool.create(folder / "p", SIZE) as pool:
        pool.array("a", 3)
    assert names(folder) == ["p"]
    with pytest.raises(errors.PoolSetExists):
        rpmem.Pool.create(folder / "p", SIZE)
