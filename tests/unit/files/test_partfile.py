"""Parts one at a time: locks, holes, identity, descriptors that run out."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("rpmem.memory.region", reason="rpmem.memory.region is not built")

from rpmem import errors
from rpmem.base import remedies
from rpmem.files import drafts, locks, partfile
from rpmem.files.drafts import publish
from rpmem.files.header import PoolAttributes
from rpmem.files.partfile import PartFile
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import single

SIZE = 2 << 20
ATTRIBUTES = PoolAttributes(signature=b"TESTPOOL", major=1)


@pytest.fixture
def path(tmp_path):
    """Return the path of a finished part."""
    part = PartFile.create(str(tmp_path / "part"), SIZE)
    publish([part.draft])
    part.close()
    return part.path


# --- locks ------------------------------------------------------------------------------------


def test_what_is_no_part_leaves_no_descriptor(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for name in (tmp_path, tmp_path / "fifo"):
        for opened in (PartFile.open, PartFile.look):
            with pytest.raises(errors.PoolSetMalformed, match="it is"):
                opened(str(name))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_part_that_is_replaced_between_open_and_lock_is_not_taken(path, monkeypatch):
    real = locks.lock

    def replaced(descriptor, where):
        os.rename(path, path + ".old")
        Path(path).write_bytes(bytes(SIZE))
        real(descriptor, where)

    monkeypatch.setattr(locks, "lock", replaced)
    with pytest.raises(errors.PoolSetBusy, match="replaced"):
        PartFile.open(path)


def test_closing_unlocks_whoever_has_the_file_open_still(path):
    part = PartFile.open(path)
    # As a forked child, or a mapping, has it: the same open file.
    other = os.dup(part.fd)
    try:
        with pytest.raises(errors.PoolSetBusy):
            PartFile.open(path)
        part.close()
        PartFile.open(path).close()
    finally:
        os.close(other)


def test_a_child_unlocks_nothing(path):
    part = PartFile.open(path)
    child = os.fork()
    if child == 0:
        part.close()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(errors.PoolSetBusy):
        PartFile.open(path)
    part.close()


def test_a_pool_can_be_opened_again_while_a_child_lives(path):
    wanted = single(path, SIZE)
    with PoolFiles.create(wanted, attributes=ATTRIBUTES):
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)
            os._exit(0)
    PoolFiles.open(wanted).close()
    os.close(go)
    os.close(ready)
    os.waitpid(child, 0)


@pytest.mark.parametrize("how", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_a_lock_that_is_no_writers_is_told_from_one(path, how):
    locked, told = os.pipe()
    goes_on, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        reader = os.open(path, os.O_RDONLY)
        fcntl.flock(reader, how)
        os.write(told, b"x")
        os.read(goes_on, 1)
        os._exit(0)
    os.read(locked, 1)
    with pytest.raises(errors.PoolSetBusy) as caught:
        PartFile.open(path)
    assert "not open in rpmem" in caught.value.hint
    if f" {child} " in Path("/proc/locks").read_text():  # where this kernel shows them
        assert f"another process, {child}" in str(caught.value)
    for descriptor in (end, locked, told, goes_on):
        os.close(descriptor)
    os.waitpid(child, 0)
    part = PartFile.open(path)
    with pytest.raises(errors.PoolSetBusy) as caught:
        PartFile.open(path)
    assert "not open in rpmem" not in str(caught.value)
    if f" {os.getpid()} " in Path("/proc/locks").read_text():
        assert "this process has it open already" in str(caught.value)
    part.close()


def test_a_reader_cannot_take_the_writers_lock(path):
    with open(path, "rb") as reader, pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.fcntl(reader, fcntl.F_OFD_SETLK, locks._FLOCK.pack(fcntl.F_WRLCK, *locks._WHOLE_FILE))
    assert not _has_writer(path)
    part = PartFile.open(path)
    assert _has_writer(path)
    part.close()
    assert not _has_writer(path)


def _has_writer(path):
    look = PartFile.look(path)
    try:
        return look.has_writer
    finally:
        look.close()


def test_file_systems_without_the_second_kind_of_lock(path, monkeypatch):
    real = fcntl.fcntl

    def without(descriptor, command, *arguments):
        if command in (fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK):
            raise OSError(errno.EINVAL, "")
        return real(descriptor, command, *arguments)

    monkeypatch.setattr(fcntl, "fcntl", without)
    part = PartFile.open(path)
    assert not _has_writer(path)
    with pytest.raises(errors.PoolSetBusy):
        PartFile.open(path)
    part.close()
    PartFile.open(path).close()


# --- holes ------------------------------------------------------------------------------------


def punch(path, offset, length):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "r+b") as file:
        os.fsync(file)
        status = libc.fallocate(
            file.fileno(), 3, ctypes.c_long(offset), ctypes.c_long(length)
        )  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        if status:
            pytest.skip("this file system punches no holes")


def blocks(path):
    return os.stat(path).st_blocks * 512


def fill(path):
    """Write all of a file, so that what is allocated is not what a hole looks like."""
    with open(path, "r+b") as file:
        file.write(b"x" * SIZE)
        os.fsync(file)


@pytest.mark.parametrize(
    "holes",
    [
        [(0, 4096)],
        [(SIZE - 4096, 4096)],
        [(8192, SIZE // 2)],
        [(n << 16, 4096) for n in range(1, 9)],
    ],
)
def test_holes_are_filled_when_a_part_is_opened(path, holes):
    fill(path)
    for offset, length in holes:
        punch(path, offset, length)
    content = Path(path).read_bytes()
    PartFile.open(path).close()
    assert blocks(path) >= SIZE
    with open(path, "rb") as file:
        # What was punched is allocated, though not written: a hole only to those who ask.
        assert file.read() == content


def test_holes_that_metadata_hide_are_filled_too(path, monkeypatch):
    """The blocks of a file count those of its extent tree: their sum proves nothing."""
    fill(path)
    punch(path, 8192, 4096)
    asked = []
    real = os.posix_fallocate
    monkeypatch.setattr(os, "posix_fallocate", lambda *a: (asked.append(a), real(*a)))
    part = PartFile.open(path, allocate=False)
    about = os.fstat(part.fd)
    monkeypatch.setattr(part, "_stat", lambda: _with_blocks(about, SIZE // 512))
    part.fill()
    part.close()
    assert [span[1:] for span in asked] == [(0, SIZE)]


def _with_blocks(about, count):
    class Stat:
        st_blocks = count
        st_size = about.st_size

    return Stat()


def test_a_part_without_holes_is_left_alone(path, monkeypatch):
    fill(path)
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: pytest.fail("nothing was missing"))
    PartFile.open(path).close()


def test_who_looks_fills_nothing(path):
    fill(path)
    punch(path, 8192, SIZE // 2)
    before = blocks(path)
    PartFile.look(path).close()
    assert blocks(path) == before < SIZE


FULL = """
    import os, sys
    from rpmem import errors
    from rpmem.files.header import PoolAttributes
    from rpmem.files.poolfiles import PoolFiles
    from rpmem.files.poolset import single
    where, kind = sys.argv[1:]
    wanted = single(where + "/p", 2 << 20)
    PoolFiles.create(wanted, attributes=PoolAttributes(signature=b"T", major=1)).close()
    header = open(where + "/p", "rb").read(4096)
    with open(where + "/sparse", "wb") as file:
        file.write(header)
        file.truncate(2 << 20)
    os.rename(where + "/sparse", where + "/p")
    free = os.statvfs(where)
    with open(where + "/full", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_frsize - (64 << 10), 1))
    before = os.stat(where + "/p").st_blocks
    try:
        PoolFiles.open(wanted)
    except errors.NoSpace as error:
        print("refused", error.where, bool(error.hint), os.stat(where + "/p").st_blocks - before)
    PoolFiles.look(wanted).close()
    os.unlink(where + "/full")
    with PoolFiles.open(wanted) as pool, memoryview(pool.region) as view:
        view[4096:] = b"x" * (len(view) - 4096)
    print("opened")
"""


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_sparse_pool_on_a_full_file_system_is_refused(tmp_path, kind):
    """Before, the first store into a hole killed the process (SIGBUS)."""
    if os.getuid() or shutil.which("unshare") is None or shutil.which("mkfs.ext4") is None:
        pytest.skip("only root can mount a small file system")
    (tmp_path / "small").mkdir()
    mount = "mount -t tmpfs -o size=8m none small"
    if kind == "ext4":
        mount = "truncate -s 16M image && mkfs.ext4 -q image && mount -o loop image small"
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} || exit 77; exec \"$@\"", "sh",
         sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path / "small"), kind],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    if ended.returncode == 77:
        pytest.skip(f"no {kind} can be mounted here")
    assert ended.stdout.splitlines() == [f"refused {tmp_path}/small/p True 0", "opened"], ended


# --- whose file it is -------------------------------------------------------------------------


def test_another_file_of_that_name_is_not_removed(path):
    part = PartFile.open(path)
    os.rename(path, path + ".mine")
    Path(path).write_bytes(b"somebody's")
    part.remove()
    assert Path(path).read_bytes() == b"somebody's"
    part.close()


def test_undoing_a_creation_leaves_another_file_of_that_name(tmp_path):
    path = str(tmp_path / "part")
    part = PartFile.create(path, SIZE)
    os.unlink(path)
    Path(path).write_bytes(b"somebody's")
    part.undo()
    part.close()
    assert os.listdir(tmp_path) == ["part"]
    assert Path(path).read_bytes() == b"somebody's"


def test_links_to_a_part_are_its_owners_business(path):
    os.link(path, path + ".backup")
    PartFile.open(path).close()
    part = PartFile.open(path)
    part.remove()
    part.close()
    assert not os.path.exists(path)
    assert os.path.exists(path + ".backup")


def test_a_symbolic_link_to_a_part(path):
    os.symlink(path, path + ".link")
    part = PartFile.open(path + ".link")
    with pytest.raises(errors.PoolSetBusy):
        PartFile.open(path)
    part.remove()
    part.close()
    assert os.path.exists(path)
    assert not os.path.lexists(path + ".link")


# --- descriptors that run out -----------------------------------------------------------------


def test_every_lack_of_descriptors_is_said(tmp_path):
    """Creating, opening and looking with one descriptor more each time, until it is enough."""
    wanted = single(tmp_path / "p", SIZE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.dup(0)
    os.close(first)
    for attempt in (
        lambda: PoolFiles.create(wanted, attributes=ATTRIBUTES),
        lambda: PoolFiles.open(wanted),
        lambda: PoolFiles.look(wanted),
    ):
        refusals = 0
        for more in range(64):
            resource.setrlimit(resource.RLIMIT_NOFILE, (first + more, hard))
            try:
                attempt().close()
            except errors.PoolSetError as error:
                assert error.errno == errno.EMFILE  # noqa: PT017
                assert "ulimit -n" in error.hint  # noqa: PT017
                assert error.where  # noqa: PT017
                refusals += 1
            else:
                break
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        else:
            pytest.fail("it never got through")
        assert refusals
        assert os.listdir(tmp_path) == ["p"]


def test_hints_are_for_those_who_read_them():
    for number in remedies._OSERROR_HINTS:
        error = remedies.from_oserror(OSError(number, ""), "cannot be read", where="/x")
        assert error.hint
        assert remedies.from_oserror(OSError(number, ""), "no", hint="own").hint == "own"
    assert partfile.is_device("/dev/null")
    assert not partfile.is_device("/none")
    assert drafts.PRIVATE == 0o600


def test_half_a_header_is_no_header(path, monkeypatch):
    part = PartFile.open(path)
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: len(data) // 2)
    with pytest.raises(errors.PoolSetError, match="cannot be written") as caught:
        part.write_header(bytes(4096))
    assert caught.value.errno == errno.EIO
    part.close()
