"""Pools without replicas: files, pool sets, buffers; opening, closing, misuse."""

from __future__ import annotations

import copy
import gc
import mmap
import os
import pickle
import re
import select
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import rpmem
from rpmem.base.pool_format import MINIMUM_SIZE, RECORD_OFFSET, RECORD_SIZE
from rpmem.epochs import change, codec
from rpmem.epochs.record import Mark
from rpmem.errors import (
    ArrayNotFound,
    BufferRefused,
    CatalogueCorrupt,
    ClosedError,
    ForkedError,
    HeaderError,
    PoolSetBusy,
    PoolSetError,
    PoolSetExists,
    PoolSetMalformed,
    PoolSetNotFound,
    PoolSetTooSmall,
    RangeError,
    ReplicaLost,
    UsageError,
)
from rpmem.files import locks
from rpmem.files.attributes import PoolAttributes
from rpmem.files.poolset import Part, PoolSet
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.local import FilePlace
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, SLOTS_OFFSET, Layout
from tests.support.media import record_in
from tests.support.pools import state_now

SIZE = 4 << 20


def poolset(tmp_path, *parts, extra=""):
    path = tmp_path / "local.set"
    lines = [f"{size} {tmp_path / name}" for name, size in parts]
    path.write_text("PMEMPOOLSET\n" + "\n".join(lines) + "\n" + extra)
    return path


@pytest.fixture(params=["file", "set", "single header", "no header"])
def place(request, tmp_path):
    if request.param == "file":
        return str(tmp_path / "pool"), SIZE
    extra = {"single header": "OPTION SINGLEHDR\n", "no header": "OPTION NOHDRS\n"}
    return poolset(tmp_path, ("one", "2M"), ("two", "3M"), extra=extra.get(request.param, "")), None


# --- round trips ---


def test_arrays_are_there_again(place):
    local, size = place
    values = np.random.default_rng(1).random((70, 900))
    with rpmem.Pool.create(local, size) as pool:
        array = pool.array("spans both parts", values.shape)
        array[:] = values
        pool.persist(array)
        assert pool.free < pool.size
    with rpmem.Pool.open(local) as pool:
        assert pool.names() == list(pool) == ["spans both parts"]
        assert len(pool) == 1
        assert "spans both parts" in pool
        assert "other" not in pool
        assert np.array_equal(pool["spans both parts"], values)
        assert pool.replicas == []


@pytest.mark.parametrize(
    "make", [bytearray, lambda n: np.zeros(n, "u1"), lambda n: mmap.mmap(-1, n)]
)
def test_buffers(make):
    buffer = make(100_000)
    with rpmem.Pool.create(buffer) as pool:
        pool.array("a", 10)[:] = 3
        pool.persist()
        assert pool.medium == "volatile"
        assert pool.level == "visible"
    with rpmem.Pool.open(buffer) as pool:
        assert pool["a"].tolist() == [3] * 10


def test_a_region_of_the_users(tmp_path):
    with rpmem.Region.anonymous(1 << 20) as region:
        with rpmem.Pool.create(region) as pool:
            pool.array("a", 3)
        assert region.closed


def test_sizes_as_text(tmp_path):
    with rpmem.Pool.create(tmp_path / "p", "3MiB") as pool:
        assert pool.size == 3 << 20
    for wrong in ("3 apples", 0, -5, "0", 1.5):
        with pytest.raises(UsageError):
            rpmem.Pool.create(tmp_path / "q", wrong)
    with pytest.raises(UsageError, match="needs a size"):
        rpmem.Pool.create(tmp_path / "q")
    with pytest.raises(UsageError, match="2 MiB"):
        rpmem.Pool.create(tmp_path / "q", "1MiB")
    assert os.listdir(tmp_path) == ["p"]


def test_user_flags_are_kept(tmp_path):
    flags = bytes(range(16))
    with rpmem.Pool.create(tmp_path / "p", SIZE, user_flags=flags) as pool:
        assert pool.attributes.user_flags == flags
    with rpmem.Pool.open(tmp_path / "p") as pool:
        assert pool.attributes.user_flags == flags
        assert pool.attributes.signature == b"RPMEMPY1"


@pytest.mark.parametrize("umask", [0, 0o077])
@pytest.mark.parametrize("mode", [None, 0o640])
def test_files_are_private_unless_a_mode_is_given(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        rpmem.Pool.create(tmp_path / "p", SIZE, **({} if mode is None else {"mode": mode})).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == (mode or 0o600)


@pytest.mark.parametrize("mode", [0, 0o400, 0o200, 0o1600, -1, "600", 0.5, None])
def test_modes_that_are_none(tmp_path, mode):
    with pytest.raises(UsageError, match="mode"):
        rpmem.Pool.create(tmp_path / "p", SIZE, mode=mode)
    assert os.listdir(tmp_path) == []


class _BytesPath:
    def __fspath__(self):
        return b"/tmp/p"


@pytest.mark.parametrize("path", ["a\0b", "", "\ud800", b"p", _BytesPath()])
def test_what_is_no_path(path):
    for attempt in (
        lambda: rpmem.Pool.create(path, SIZE),
        lambda: rpmem.Pool.open(path),
        lambda: rpmem.Pool.open(path, readonly=True),
    ):
        with pytest.raises(UsageError, match="path"):
            attempt()


def test_a_working_directory_that_is_gone(tmp_path):
    script = """
        import os, sys, rpmem
        os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])
        try:
            rpmem.Pool.open("p")
        except rpmem.RpmemError as error:
            print(error)
    """
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-c", textwrap.dedent(script), tmp_path / "gone"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert "Give an absolute path" in ended.stdout, ended.stderr


def test_what_is_not_whole_is_removed_by_force_only(tmp_path):
    file = poolset(tmp_path, ("a", "4M"), ("b", "4M"))
    rpmem.Pool.create(file).close()
    (tmp_path / "a").unlink()
    with pytest.raises(PoolSetNotFound, match="force"):
        FilePlace(file).remove()
    (tmp_path / "zero").write_bytes(bytes(SIZE))
    with pytest.raises(HeaderError, match="force"):
        FilePlace(tmp_path / "zero").remove()
    assert sorted(os.listdir(tmp_path)) == ["b", "local.set", "zero"]
    with pytest.raises(PoolSetExists, match="remove"):
        rpmem.Pool.create(file)
    FilePlace(file).remove(force=True, pool_set_too=True)
    assert os.listdir(tmp_path) == ["zero"]


def test_an_error_names_the_file_once(tmp_path):
    file = tmp_path / "program.py"
    file.write_text("print()")
    for attempt in (
        lambda: rpmem.Pool.open(file),
        lambda: rpmem.Pool.open(file, readonly=True),
        lambda: rpmem.Pool.create(file, SIZE),
    ):
        with pytest.raises(PoolSetMalformed) as caught:
            attempt()
        assert str(caught.value).count(str(file)) == 1


# --- epochs ---


def test_epochs_count_writers(tmp_path):
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE) as pool:
        assert state_now(pool) == (1, "BEGUN")
    for number in (2, 3):
        with rpmem.Pool.open(path) as pool:
            assert state_now(pool) == (number, "BEGUN")
    with rpmem.Pool.open(path, readonly=True) as pool:
        assert state_now(pool) == (3, "CLEAN")


def test_a_killed_writer_leaves_the_pool_open_and_usable(tmp_path):
    path = tmp_path / "p"
    script = """
        import os, signal, sys, rpmem
        pool = rpmem.Pool.create(sys.argv[1], "4MiB")
        a = pool.array("a", 5); a[:] = 7; pool.persist(a)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script), path])
    assert ended.returncode == -9
    with rpmem.Pool.open(path, readonly=True) as pool:
        assert state_now(pool) == (1, "BEGUN")
        assert pool["a"].tolist() == [7] * 5
    with rpmem.Pool.open(path) as pool:
        assert state_now(pool) == (2, "BEGUN")


def test_readonly_changes_nothing(tmp_path):
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE) as pool:
        pool.array("a", 5)[:] = 1
    before = path.read_bytes()
    with rpmem.Pool.open(path, readonly=True) as pool:
        assert pool.array("a", 5).tolist() == [1] * 5
        with pytest.raises(ValueError, match="read-only"):
            pool["a"][0] = 1
        with pytest.raises(UsageError, match="readonly"):
            pool.array("b", 5)
        with pytest.raises(UsageError, match="readonly"):
            del pool["a"]
        with pytest.raises(UsageError, match="readonly"):
            pool.pull()
        with pytest.raises(ArrayNotFound):
            pool["b"]
    assert path.read_bytes() == before


def test_readonly_cannot_be_made_writable(tmp_path):
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE) as pool:
        pool.array("a", 5)[:] = 1
    in_memory = bytearray(path.read_bytes())
    for local in (path, in_memory, memoryview(bytes(in_memory))):
        with rpmem.Pool.open(local, readonly=True) as pool:
            for view in (pool["a"], pool["a"][1:], pool["a"].view("u1")):
                with pytest.raises(ValueError, match="WRITEABLE"):
                    view.setflags(write=True)
            assert pool["a"].tolist() == [1] * 5
            del view


def test_readonly_makes_nothing_durable(tmp_path):
    with rpmem.Pool.create(tmp_path / "p", SIZE) as pool:
        pool.array("a", 500_000, "u1")
    with rpmem.Pool.open(tmp_path / "p", readonly=True) as pool:
        for attempt in (
            lambda: pool.persist(),
            lambda: pool.persist(pool["a"]),
            lambda: pool.persist_many([pool["a"][:5], pool["a"][-5:]]),
            lambda: pool.flush(pool["a"]),
            lambda: pool.deep_persist(pool["a"]),
        ):
            with pytest.raises(UsageError, match="readonly=True"):
                attempt()
        pool.drain()


WRITER = """
    import sys, rpmem
    with rpmem.Pool.open(sys.argv[1]) as pool:
        print("open", flush=True)
        sys.stdin.readline()
        for number in range(70):
            pool.array(f"a{number % 7}", number % 5 + 1)
            del pool[f"a{number % 7}"]
        pool.array("last", 9)[:] = 5
        print("done", flush=True)
        sys.stdin.readline()
"""


def test_looking_on_while_somebody_writes(tmp_path):
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE) as pool:
        pool.array("first", 3)
    with rpmem.Pool.open(path, readonly=True) as pool:
        assert not pool.has_writer
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer:
        assert writer.stdout.readline() == "open\n"
        writer.stdin.write("\n")
        writer.stdin.flush()
        looks = 0
        while not select.select([writer.stdout], [], [], 0)[0]:
            with rpmem.Pool.open(path, readonly=True) as pool:
                assert pool.has_writer
                assert state_now(pool) == (2, "BEGUN")
                assert "first" in pool
            looks += 1
        assert looks > 3
        with rpmem.Pool.open(path, readonly=True) as first:
            with rpmem.Pool.open(path, readonly=True) as second:
                assert first["last"].tolist() == second["last"].tolist() == [5] * 9
            # Who looks keeps nobody out, and is kept out by nobody.
            writer.communicate("\n")
            assert not first.has_writer
            with rpmem.Pool.open(path) as pool:
                assert state_now(pool) == (3, "BEGUN")
                assert not pool.has_writer
            assert state_now(first) == (2, "BEGUN")


def test_what_is_torn_beside_a_writer_is_no_damage(tmp_path, monkeypatch):
    """Both roots of the catalogue are on their way from old to new when the reader looks."""
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE) as writer:
        writer.array("a", 3)
        whole = path.read_bytes()
        waits = 0

        def mend(_):
            nonlocal waits
            waits += 1
            if waits == 3:
                path.open("r+b").write(whole)

        monkeypatch.setattr("rpmem.files.locks.time.sleep", mend)
        torn = bytearray(whole)
        torn[SLOTS_OFFSET : SLOTS_OFFSET + (1 << 17)] = bytes(1 << 17)
        with path.open("r+b") as file:
            file.write(torn)
        with rpmem.Pool.open(path, readonly=True) as pool:
            assert pool.names() == ["a"]
        assert waits == 3
    with path.open("r+b") as file:
        file.write(torn)
    with pytest.raises(CatalogueCorrupt):
        rpmem.Pool.open(path, readonly=True)
    assert waits == 4


AS_NOBODY = """
    import os, sys, rpmem
    from rpmem.errors import PoolSetDenied
    os.chdir(sys.argv[1])
    # Once as root: the folder of rpmem itself may be closed to others.
    for name in ("p", "p.set"):
        rpmem.Pool.open(name, readonly=True).close()
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    with rpmem.Pool.open("p", readonly=True) as pool:
        print(pool["a"].tolist(), pool.epoch.number)
    with rpmem.Pool.open("p.set", readonly=True) as pool:
        print(pool["a"].tolist(), pool.epoch.number)
    try:
        rpmem.Pool.open("p")
    except PoolSetDenied:
        print("denied")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_readonly_needs_to_read_only():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        parts = [Part(SIZE, f"{folder}/part{index}") for index in range(2)]
        (folder / "p.set").write_text(PoolSet(parts).format())
        for file in ("p", "p.set"):
            size = SIZE if file == "p" else None
            with rpmem.Pool.create(folder / file, size, mode=0o644) as pool:
                pool.array("a", 2)[:] = 4
        for part in folder.iterdir():
            part.chmod(0o444)
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(AS_NOBODY), folder],
            capture_output=True,
            text=True,
        )
    assert ended.stdout.splitlines() == ["[4.0, 4.0] 1"] * 2 + ["denied"], ended.stderr


# --- ranges ---


def test_what_persist_takes(tmp_path):
    with rpmem.Pool.create(tmp_path / "p", SIZE) as pool:
        array = pool.array("a", (100, 100))
        times = pool.array("t", 10, "M8[s]")
        empty = pool.array("e", (0, 3))
        for x in (array, array[3], array[:, 5], array[::-3, ::7], times, times[::2], empty,
                  memoryview(array), (32768, 100), None):  # fmt: skip
            pool.persist(x)
            pool.flush(x)
            pool.deep_persist(x)
        pool.drain()
        pool.persist(array, relaxed=True)
        pool.persist_many([array[1], (32768, 8), times])
        pool.persist_many(np.array([[32768, 64], [65536, 8]], dtype=np.uint64))
        for wrong in ((0, 8), (4000, 200), (SIZE - 8, 9), (2**64 - 8, 16), (-1, 5)):
            with pytest.raises(RangeError):
                pool.persist(wrong)
        with pytest.raises(RangeError):
            pool.persist(np.zeros(5))
        for wrong in ("text", 5, object()):
            with pytest.raises(BufferRefused):
                pool.persist(wrong)


def test_there_is_nothing_to_read_from(tmp_path):
    with rpmem.Pool.create(tmp_path / "p", SIZE) as pool:
        for call in (lambda: pool.read((32768, 8)), pool.pull, lambda: pool.detach(0)):
            with pytest.raises(UsageError, match="no replica"):
                call()


# --- misuse ---


def test_a_second_opener_is_told(tmp_path):
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE):
        with pytest.raises(PoolSetBusy):
            rpmem.Pool.open(path)
        with pytest.raises(PoolSetBusy):
            rpmem.Pool.create(path, SIZE)
    with pytest.raises(PoolSetExists):
        rpmem.Pool.create(path, SIZE)


def test_creating_over_something_leaves_it_alone(tmp_path):
    path = tmp_path / "p"
    path.write_bytes(b"precious" * (SIZE // 8))
    with pytest.raises(PoolSetExists):
        rpmem.Pool.create(path, SIZE)
    assert path.read_bytes() == b"precious" * (SIZE // 8)
    path.write_text("short")
    with pytest.raises(rpmem.PoolSetError):
        rpmem.Pool.create(path, SIZE)
    assert path.read_text() == "short"


def test_a_failed_create_leaves_nothing(tmp_path):
    (tmp_path / "two").write_bytes(b"x" * 100)
    local = poolset(tmp_path, ("one", "2M"), ("two", "2M"))
    with pytest.raises(rpmem.PoolSetError):
        rpmem.Pool.create(local)
    assert sorted(os.listdir(tmp_path)) == ["local.set", "two"]


def test_what_is_no_pool(tmp_path):
    path = tmp_path / "p"
    with pytest.raises(PoolSetNotFound):
        rpmem.Pool.open(path)
    path.write_bytes(bytes(SIZE))
    with pytest.raises(HeaderError):
        rpmem.Pool.open(path)
    with pytest.raises(PoolSetTooSmall):
        rpmem.Pool.create(bytearray(9000))
    for wrong in (b"readonly" * 10000, memoryview(bytearray(10**5))[::2], object(), 5, None):
        with pytest.raises(UsageError):
            rpmem.Pool.create(wrong)
    with pytest.raises(BufferRefused, match="multiple of 8"):
        rpmem.Pool.create(memoryview(bytearray(10**5))[1:])
    with pytest.raises(PoolSetMalformed, match="REPLICA local:"):
        rpmem.Pool.create(poolset(tmp_path, ("one", "2M"), extra="REPLICA\n2M /tmp/x\n"))


@pytest.mark.parametrize(("place", "length"), [(LAYOUT_OFFSET, 64), (RECORD_OFFSET, RECORD_SIZE)])
def test_an_interrupted_creation_is_recognised(tmp_path, place, length):
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE):
        pass
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(bytes(length))
    with pytest.raises(CatalogueCorrupt, match=r"[Cc]reation was interrupted"):
        rpmem.Pool.open(path)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("place", [0, 64, 150, 8192, 8280])
def test_a_damaged_record_is_reported(tmp_path, place, readonly):
    """Of a copy that was closed: no half of it stands in for the other."""
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE):
        pass
    before = flipped(path, RECORD_OFFSET + place)
    with pytest.raises(CatalogueCorrupt, match="record of this copy is damaged"):
        rpmem.Pool.open(path, readonly=readonly)
    assert path.read_bytes() == before


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    return content


def cut_off(path, after):
    """Leave the record as a crash does after so many of the four stores of a change."""
    record = record_in(path.read_bytes())
    layout = Layout.unpack(path.read_bytes()[LAYOUT_OFFSET:][:LAYOUT_SIZE])
    offered = change.marked(record, Mark.BEGUN)
    with open(path, "r+b") as file:
        sequence = codec.read(
            path.read_bytes()[RECORD_OFFSET:][:RECORD_SIZE], pool_id=layout.pool_id
        ).sequence
        steps = list(codec.changes(offered, sequence + 1, pool_id=layout.pool_id))
        for offset, data in steps[:after]:
            file.seek(RECORD_OFFSET + offset)
            file.write(data)


@pytest.mark.parametrize("after", range(5))
def test_a_change_of_the_record_that_was_cut_off_is_understood(tmp_path, after):
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE) as pool:
        pool.array("a", 3)[:] = 1
        pool.persist()
    cut_off(path, after)
    before = path.read_bytes()
    with rpmem.Pool.open(path, readonly=True) as pool:
        assert state_now(pool) == (1, "CLEAN" if after < 2 else "BEGUN")
    assert path.read_bytes() == before
    with rpmem.Pool.open(path) as pool:
        assert state_now(pool) == (2, "BEGUN")
        assert pool["a"].tolist() == [1] * 3
    area = path.read_bytes()[RECORD_OFFSET:][:RECORD_SIZE]
    assert area[64:8192] == area[8192:16320]


def test_parts_of_different_pools(tmp_path):
    first = poolset(tmp_path, ("one", "2M"), ("two", "2M"))
    with rpmem.Pool.create(first):
        pass
    os.rename(tmp_path / "two", tmp_path / "kept")
    os.rename(tmp_path / "one", tmp_path / "kept too")
    with rpmem.Pool.create(first):
        pass
    os.replace(tmp_path / "kept", tmp_path / "two")
    with pytest.raises(HeaderError):
        rpmem.Pool.open(first)


# --- the end ---


def test_everything_after_close_is_told_so(tmp_path):
    pool = rpmem.Pool.create(tmp_path / "p", SIZE)
    pool.array("a", 3)
    assert "4194304 bytes" in repr(pool)
    pool.close()
    pool.close()
    assert pool.closed
    assert "closed" in repr(pool)
    for call in (
        pool.persist, pool.drain, pool.names, lambda: pool["a"], lambda: pool.array("b", 3),
        lambda: pool.flush((32768, 8)), lambda: pool.deep_persist((32768, 8)), lambda: len(pool),
        lambda: pool.persist_many([(32768, 8)]), lambda: pool.__enter__(), lambda: "a" in pool,
        lambda: pool.__delitem__("a"), pool.pull, lambda: pool.read((32768, 8)),
        lambda: pool.attach("local: x.set"), lambda: pool.detach(0), lambda: pool.free,
    ):  # fmt: skip
        with pytest.raises(ClosedError, match="closed"):
            call()


def test_leaving_a_with_block_ends_the_pool_though_views_live(tmp_path):
    path = tmp_path / "p"
    with rpmem.Pool.create(path, SIZE) as pool:
        array = pool.array("a", 3)
        array[:] = 5
        pool.persist(array)
    assert pool.closed
    assert array.tolist() == [5, 5, 5]
    with pytest.raises(BufferError):
        pool.close()
    with rpmem.Pool.open(path) as again:
        assert again["a"].tolist() == [5, 5, 5]
    del array
    pool.close()


def test_an_error_in_a_with_block_comes_through(tmp_path):
    def body():
        with rpmem.Pool.create(tmp_path / "p", SIZE) as pool:
            array = pool.array("a", 3)
            array[:] = 1 / pool.free * 0
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        body()
    with rpmem.Pool.open(tmp_path / "p") as pool:
        assert pool.names() == ["a"]


def test_a_forgotten_pool_warns(tmp_path):
    pool = rpmem.Pool.create(tmp_path / "p", SIZE)
    with pytest.warns(ResourceWarning, match="never closed"):
        del pool
    with rpmem.Pool.open(tmp_path / "p") as pool:
        assert state_now(pool) == (2, "BEGUN")


def test_a_forked_child_is_told(tmp_path):
    script = """
        import os, sys, traceback, rpmem
        with rpmem.Pool.create(sys.argv[1], "4MiB") as pool:
            a = pool.array("a", 3)
            child = os.fork()
            if child == 0:
                for call in (pool.persist, pool.names, pool.close, lambda: pool["a"]):
                    try:
                        call()
                    except rpmem.ForkedError as error:
                        print(error, flush=True)
                    else:
                        print("not refused", flush=True)
            else:
                assert os.waitpid(child, 0)[1] == 0
                a[:] = 1
                pool.persist(a)
                print(pool.record.mark.name)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), tmp_path / "p"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.count("parent process") == 4
    assert "not refused" not in ended.stdout
    assert ended.stdout.splitlines()[-1] == "BEGUN"
    assert issubclass(ForkedError, ClosedError)
    with rpmem.Pool.open(tmp_path / "p", readonly=True) as pool:
        assert state_now(pool) == (1, "CLEAN")
        assert pool["a"].tolist() == [1] * 3


# --- threads ---


def test_many_threads_make_use_and_delete_arrays(tmp_path):
    rounds, threads = 20, 8
    with rpmem.Pool.create(tmp_path / "p", "16MiB") as pool:
        shared = pool.array("shared", (threads, 100))

        def work(number):
            for turn in range(rounds):
                name = f"{number}-{turn}"
                array = pool.array(name, 50 + turn)
                array[:] = number
                pool.persist(array)
                shared[number] = turn
                pool.persist(shared[number])
                del array
                if turn % 2:
                    del pool[name]

        with ThreadPoolExecutor(threads) as executor:
            list(executor.map(work, range(threads)))
    with rpmem.Pool.open(tmp_path / "p", readonly=True) as pool:
        assert len(pool) == 1 + threads * rounds // 2
        for number in range(threads):
            assert (pool[f"{number}-10"] == number).all()
        assert (pool["shared"] == rounds - 1).all()


def test_closing_under_the_feet_of_other_threads(tmp_path):
    pool = rpmem.Pool.create(tmp_path / "p", SIZE)
    stop, errors = threading.Event(), []

    def work():
        try:
            while not stop.is_set():
                pool.persist((32768, 4096))
        except ClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    pool.close()
    for thread in threads:
        thread.join(10)
    stop.set()
    assert len(errors) == 6


def test_no_warnings_in_ordinary_use(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = rpmem.Pool.create(tmp_path / "p", SIZE)
        pool.array("a", 3)
        pool.close()
        del pool


# --- handles ---------------------------------------------------------------------------------


def _reachable(pool):
    """Every object of ours that hangs on a pool."""
    seen, found, todo = set(), [], [pool]
    while todo:
        each = todo.pop()
        if id(each) in seen or not type(each).__module__.startswith("rpmem"):
            continue
        seen.add(id(each))
        found.append(each)
        inside = list(vars(each).values()) if hasattr(each, "__dict__") else []
        for value in inside:
            todo.extend(value if isinstance(value, list | tuple) else [value])
    return found


@pytest.mark.parametrize("attempt", [copy.copy, copy.deepcopy, pickle.dumps])
def test_handles_are_neither_copied_nor_pickled(tmp_path, attempt, recwarn):
    with rpmem.Pool.create(
        tmp_path / "p", "2MiB", replicas=f"local:{tmp_path} a.set", parts=1
    ) as pool:
        handles = [pool, pool.replicas[0], pool._region, pool._copies.core, pool.replicas[0].group]
        for handle in handles:
            with pytest.raises(TypeError, match="cannot be copied or pickled") as caught:
                attempt(handle)
            assert "a handle such as <" in str(caught.value)
        pool.array("a", 3)[:] = 7
        again = attempt(pool["a"])
        assert list(pickle.loads(again) if isinstance(again, bytes) else again) == [7, 7, 7]
        if attempt is not copy.copy:
            with pytest.raises(TypeError, match=re.escape("numpy.array(pool[name])")):
                attempt({"inside": [pool]})
    gc.collect()
    assert not list(recwarn)


def test_nothing_that_owns_a_file_or_a_connection_can_be_copied(tmp_path):
    """A copy that dies closes what the original uses."""
    with rpmem.Pool.create(
        tmp_path / "p", "2MiB", replicas=f"local:{tmp_path} a.set", parts=1
    ) as pool:
        owners = [each for each in _reachable(pool) if hasattr(each, "close")]
        # Protocols do no I/O.
        owners = [each for each in owners if not type(each).__module__.startswith("rpmem.control")]
        assert len(owners) > 8
        for owner in owners:
            with pytest.raises(TypeError):
                copy.copy(owner)
        del owners
        pool.persist()


def test_large_arrays_are_zero_where_others_were(tmp_path):
    with rpmem.Pool.create(tmp_path / "pool", "8MiB") as pool:
        first = pool.array("first", 5 << 20, "u1")
        first[:] = 255
        pool.persist(first)
        del first
        del pool["first"]
        second = pool.array("second", 5 << 20, "u1")
        assert not second.any()
        del second


@pytest.mark.parametrize("make", ["create", "create_hidden"])
def test_a_pool_set_file_that_cannot_be_let_go_of_leaves_no_parts(tmp_path, monkeypatch, make):
    described = poolset(tmp_path, ("one", "2M"), ("two", "3M"))
    before = sorted(tmp_path.rglob("*"))
    close = locks.close

    def failing(descriptor, where, **more):
        close(descriptor, where, **more)
        if where == str(described):
            raise PoolSetError("it cannot be closed", where=where)

    monkeypatch.setattr(locks, "close", failing)
    attributes = PoolAttributes(signature=b"TESTPOOL", poolset_uuid=b"p" * 16, uuid=b"u" * 16)
    with pytest.raises(PoolSetError, match="cannot be closed"):
        getattr(FilePlace(described), make)(SIZE, attributes)
    monkeypatch.undo()
    assert sorted(tmp_path.rglob("*")) == before
    rpmem.Pool.create(described).close()


def test_all_that_is_free_can_be_had(place):
    local, size = place
    with rpmem.Pool.create(local, size) as pool:
        pool.array("first", 5000, "u1")
        free = pool.free
        pool.array("rest", free // 4096 * 4096 - 8192, "u1")
        assert pool.free == free - free // 4096 * 4096 + 8192
        with pytest.raises(rpmem.PoolFull):
            pool.array("too much", pool.free + 1, "u1")
        for name in list(pool):
            del pool[name]
        pool.array("all", pool.free, "u1")
        assert pool.free == 0


def test_a_superblock_of_another_pool_is_refused(tmp_path):
    for name in ("one", "two"):
        rpmem.Pool.create(tmp_path / name, SIZE).close()
    with open(tmp_path / "one", "rb") as one, open(tmp_path / "two", "r+b") as two:
        two.write(one.read(4096))
    with pytest.raises(HeaderError, match="different pools"):
        rpmem.Pool.open(tmp_path / "two")


def test_a_copy_that_was_cut_off_is_refused(tmp_path):
    rpmem.Pool.create(tmp_path / "pool", SIZE).close()
    os.truncate(tmp_path / "pool", SIZE - 4096)
    for how in ({}, {"readonly": True}):
        with pytest.raises(CatalogueCorrupt, match=f"created with {SIZE} bytes"):
            rpmem.Pool.open(tmp_path / "pool", **how)


def test_a_creation_in_a_buffer_that_fails_leaves_no_pool_in_it(monkeypatch):
    def broken(medium, layout, **_):
        raise ReplicaLost("cut")

    memory = bytearray(SIZE)
    monkeypatch.setattr(Catalogue, "format", broken)
    with pytest.raises(ReplicaLost):
        rpmem.Pool.create(memory)
    monkeypatch.undo()
    with pytest.raises(HeaderError, match="no pool was created"):
        rpmem.Pool.open(memory)
    assert not any(memory[:4096])


@pytest.mark.parametrize("size", [MINIMUM_SIZE + 1, MINIMUM_SIZE + 4095, MINIMUM_SIZE + 4096])
def test_a_pool_is_no_smaller_than_was_asked_for(tmp_path, size):
    with rpmem.Pool.create(tmp_path / "p", size) as pool:
        assert pool.size + 4096 >= size
    assert (tmp_path / "p").stat().st_size == MINIMUM_SIZE + 4096
