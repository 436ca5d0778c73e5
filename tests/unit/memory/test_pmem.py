"""Regions: mapping, ranges, media, buffers, and the copy that does not tear words."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip(
    "rpmem.memory.region", reason="rpmem.memory.region is not built", exc_type=ImportError
)

from rpmem import errors
from rpmem.memory.device import device_identity
from rpmem.memory.region import Region
from tests.support.compiled import ROOT
from tests.support.shadow import map_shadow

PAGE = mmap.PAGESIZE
MIB = 1 << 20


@pytest.fixture(params=["disk", "tmpfs"])
def folder(request, tmp_path):
    """Yield a folder on the test disk, then one on tmpfs."""
    if request.param == "disk":
        yield tmp_path
        return
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("there is no /dev/shm")
    place = shm / f"rpmem-test-{os.getpid()}"
    place.mkdir()
    yield place
    for file in place.iterdir():
        file.unlink()
    place.rmdir()


def parts_in(folder, sizes, skip=PAGE):
    """Make files; the first is mapped whole, the others without `skip` bytes at their start."""
    parts = []
    for index, size in enumerate(sizes):
        fd = os.open(folder / f"part{index}", os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, size)
        at = skip if index else 0
        parts.append((fd, at, size - at))
    return parts


def close_all(parts):
    for fd, _, _ in parts:
        os.close(fd)


def filesystem(path):
    listing = subprocess.run(
        ["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True
    )
    return listing.stdout.strip()


def medium_expected(folder):
    return "volatile" if filesystem(folder) in ("tmpfs", "ramfs") else "page"


def test_parts_are_one_range_and_reach_their_files(folder):
    parts = parts_in(folder, [2 * MIB, 3 * MIB, 2 * MIB])
    with Region.map_parts(parts) as region:
        size = sum(length for _, _, length in parts)
        assert (region.size, len(region), region.segment_count) == (size, size, 3)
        assert region.medium == medium_expected(folder)
        edge = 2 * MIB
        with memoryview(region) as view:
            assert view.nbytes == size
            assert view.format == "B"
            assert not view.readonly
            view[edge - 4 : edge + 4] = b"abcdEFGH"
            view[size - 1] = 7
        region.persist(edge - 4, 8)
        region.persist(0, size)
        region.flush(edge - 4, 8)
        region.drain()
        region.deep_persist(edge - 4, 8)
        assert os.pread(parts[0][0], 4, 2 * MIB - 4) == b"abcd"
        assert os.pread(parts[1][0], 4, PAGE) == b"EFGH"
        assert os.pread(parts[2][0], 1, 2 * MIB - 1) == b"\7"
    close_all(parts)


def test_descriptors_may_be_closed_after_mapping(folder):
    parts = parts_in(folder, [MIB, MIB])
    region = Region.map_parts(parts)
    close_all(parts)
    with memoryview(region) as view:
        view[:3] = b"xyz"
    region.persist(0, region.size)
    region.close()
    assert (folder / "part0").read_bytes()[:3] == b"xyz"


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_forced_pmem(folder, how, monkeypatch):
    parts = parts_in(folder, [MIB, MIB])
    if how == "environment":
        monkeypatch.setenv("PMEM_IS_PMEM_FORCE", "1")
    with Region.map_parts(parts, how == "argument") as region:
        assert region.medium == "pmem"
        assert region.granularity == 64
        with memoryview(region) as view:
            view[MIB - 2 : MIB + 2] = b"1234"
        region.persist(MIB - 2, 4)
        region.flush(0, region.size)
        region.drain()
        region.deep_persist(0, region.size)
        assert os.pread(parts[0][0], 2, MIB - 2) == b"12"
        assert os.pread(parts[1][0], 2, PAGE) == b"34"
    close_all(parts)


def test_never_pmem_by_the_environment(folder, monkeypatch):
    monkeypatch.setenv("PMEM_IS_PMEM_FORCE", "0")
    parts = parts_in(folder, [MIB, MIB])
    with Region.map_parts(parts) as region:
        assert region.medium == medium_expected(folder)
        region.persist(0, region.size)
    close_all(parts)


def test_msync_is_really_called(tmp_path):
    """What persist promises on a page medium is what the kernel was asked for."""
    if medium_expected(tmp_path) != "page":
        pytest.skip("the test folder is not on a disk")
    if not Path("/usr/bin/strace").exists():
        pytest.skip("strace is not installed")
    program = textwrap.dedent(
        """
        import os, sys
        from rpmem.memory.region import Region
        fds = [os.open(os.path.join(sys.argv[1], n), os.O_RDWR | os.O_CREAT) for n in "ab"]
        for fd in fds: os.ftruncate(fd, 1 << 20)
        r = Region.map_parts([(fds[0], 0, 1 << 20), (fds[1], 4096, (1 << 20) - 4096)])
        os.write(2, b"begin\\n"); r.persist((1 << 20) - 5000, 5001); os.write(2, b"end\\n")
        """
    )
    result = subprocess.run(
        ["strace", "-e", "trace=msync,write", sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    calls = result.stderr.partition("begin")[2].partition("end")[0]
    spans = [line for line in calls.splitlines() if line.startswith("msync(")]
    assert len(spans) == 2
    assert "8192, MS_SYNC" in spans[0]
    assert "4096, MS_SYNC" in spans[1]


U64 = st.integers(min_value=0, max_value=(1 << 64) + 5)


@settings(max_examples=300, deadline=None)
@given(offset=U64 | st.integers(0, 9000), length=U64 | st.integers(0, 9000))
def test_range_check_never_wraps(offset, length):
    region = Region.anonymous(2 * PAGE)
    for call in (region.persist, region.flush, region.deep_persist):
        if offset + length <= 2 * PAGE:
            call(offset, length)
        else:
            with pytest.raises(errors.RangeError):
                call(offset, length)
    region.close()


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (-5, -5)])
def test_negative_ranges_are_refused(offset, length):
    with Region.anonymous(PAGE) as region, pytest.raises(errors.RangeError):
        region.persist(offset, length)


def test_range_of_the_wrong_type():
    with Region.anonymous(PAGE) as region, pytest.raises(TypeError):
        region.persist("0", 1)


def test_parts_must_fit_their_files(tmp_path):
    parts = parts_in(tmp_path, [MIB])
    fd = parts[0][0]
    bad = [
        (fd, 0, MIB + PAGE),
        (fd, PAGE, MIB),
        (fd, 100, PAGE),
        (fd, 0, 100),
        (fd, 0, 0),
        (fd, -PAGE, PAGE),
        (fd, (1 << 64) - PAGE, 2 * PAGE),
    ]
    for part in bad:
        for mapper in (Region.map_parts, map_shadow):
            with pytest.raises(errors.RangeError):
                mapper([part])
    with pytest.raises(errors.UsageError):
        Region.map_parts([])
    close_all(parts)


def test_read_only_files_cannot_be_mapped(tmp_path):
    (tmp_path / "part").write_bytes(bytes(MIB))
    fd = os.open(tmp_path / "part", os.O_RDONLY)
    with pytest.raises(errors.PoolSetError) as caught:
        Region.map_parts([(fd, 0, MIB)])
    assert caught.value.errno == errno.EACCES
    with pytest.raises(errors.PoolSetError):
        Region.map_parts([(fd, 0, MIB)], True)
    os.close(fd)


def test_nothing_is_left_behind_by_a_failed_mapping(tmp_path):
    parts = parts_in(tmp_path, [MIB])
    (tmp_path / "ro").write_bytes(bytes(MIB))
    fd = os.open(tmp_path / "ro", os.O_RDONLY)

    def maps():
        return sum(str(tmp_path) in line for line in Path("/proc/self/maps").open())

    descriptors = len(os.listdir("/proc/self/fd"))
    for force in (False, True):
        with pytest.raises(errors.PoolSetError):
            Region.map_parts([parts[0], (fd, 0, MIB)], force)
    assert maps() == 0
    map_shadow(parts).close()
    assert maps() == 0
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    os.close(fd)
    close_all(parts)


# --- the shadow medium -----------------------------------------------------------------------


def test_shadow_keeps_what_was_not_flushed_from_the_file(folder):
    parts = parts_in(folder, [MIB, MIB])
    with map_shadow(parts) as region:
        assert region.medium == "page"
        with memoryview(region) as view:
            view[100:104] = b"gone"
            view[MIB - 2 : MIB + 2] = b"kept"
            region.persist(MIB - 2, 4)
            assert bytes(view[100:104]) == b"gone"
            assert bytes(view[MIB - 2 : MIB + 2]) == b"kept"
        region.drain()
    assert os.pread(parts[0][0], 4, 100) == bytes(4)
    assert os.pread(parts[0][0], 2, MIB - 2) == b"ke"
    assert os.pread(parts[1][0], 2, PAGE) == b"pt"
    assert os.pread(parts[1][0], 2, PAGE + 2) == bytes(2)
    close_all(parts)


def test_shadow_loses_unflushed_bytes_on_sigkill(tmp_path):
    program = textwrap.dedent(
        """
        import os, signal, sys
        from rpmem.memory.region import Region
        from tests.support.shadow import map_shadow
        fd = os.open(sys.argv[1], os.O_RDWR)
        r = {"map_shadow": map_shadow, "map_parts": Region.map_parts}[sys.argv[2]]([(fd, 0, 8192)])
        view = memoryview(r)
        view[0:4] = b"SAFE"; r.persist(0, 4); view[4096:4100] = b"LOST"
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    seen = {}
    for mapper in ("map_shadow", "map_parts"):
        file = tmp_path / mapper
        file.write_bytes(bytes(8192))
        child = subprocess.run(
            [sys.executable, "-c", program, str(file), mapper], cwd=ROOT, check=False
        )
        assert child.returncode == -signal.SIGKILL
        content = file.read_bytes()
        seen[mapper] = (content[0:4], content[4096:4100])
    assert seen["map_shadow"] == (b"SAFE", bytes(4))
    # The kernel keeps the page cache of a killed process: only the shadow can show a lost flush.
    assert seen["map_parts"] == (b"SAFE", b"LOST")


def test_a_refusing_medium_is_reported(tmp_path):
    parts = parts_in(tmp_path, [MIB])
    region = map_shadow(parts)
    region.label = "pool.set"
    # Sealing is the simplest way to have a write refused that could be opened for writing.
    import fcntl

    sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(sealed, PAGE)
    shadow = map_shadow([(sealed, 0, PAGE)])
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    shadow.label = "sealed.set"
    for call in (shadow.persist, shadow.flush, shadow.deep_persist):
        with pytest.raises(errors.FlushFailed) as caught:
            call(0, 8)
        assert caught.value.errno == errno.EPERM
        assert "sealed.set" in str(caught.value)
    shadow.close()
    os.close(sealed)
    region.close()
    close_all(parts)


# --- buffers ---------------------------------------------------------------------------------


def test_close_is_refused_while_views_exist():
    region = Region.anonymous(PAGE)
    region.label = "p.set"
    view = memoryview(region)
    slice_ = view[10:20]
    view.release()
    with pytest.raises(BufferError, match=r"p\.set .*1 view"):
        region.close()
    slice_[0] = 1
    slice_.release()
    region.close()
    region.close()
    assert region.closed
    assert (region.size, region.address) == (0, 0)


def test_close_is_refused_while_pinned():
    region = Region.anonymous(PAGE)
    region.pin("replica node2 mirror.set")
    with pytest.raises(BufferError, match=r"replica node2 mirror\.set"):
        region.close()
    with pytest.raises(ValueError, match="x"):
        region.unpin("x")
    region.unpin("replica node2 mirror.set")
    region.close()
    with pytest.raises(errors.ClosedError):
        region.pin("late")


def test_views_keep_the_memory():
    region = Region.anonymous(PAGE)
    view = memoryview(region)
    del region
    view[PAGE - 1] = 255
    assert view[PAGE - 1] == 255


@pytest.mark.parametrize("call", ["persist", "flush", "deep_persist"])
def test_a_closed_region_refuses(call):
    region = Region.anonymous(PAGE)
    region.close()
    with pytest.raises(errors.ClosedError):
        getattr(region, call)(0, 1)
    with pytest.raises(errors.ClosedError):
        region.drain()
    with pytest.raises(errors.ClosedError):
        memoryview(region)
    with pytest.raises(errors.ClosedError), region:
        pass


def test_numpy_views():
    numpy = pytest.importorskip("numpy")
    region = Region.anonymous(4 * PAGE)
    array = numpy.frombuffer(region, dtype=numpy.float64)
    array[:] = 1.5
    with pytest.raises(BufferError):
        region.close()
    assert array.__array_interface__["data"][0] == region.address
    del array
    region.close()


def test_from_buffer_uses_the_memory_itself():
    memory = bytearray(100)
    with Region.from_buffer(memory) as region:
        assert (region.size, region.medium) == (100, "volatile")
        with memoryview(region) as view:
            view[99] = 9
        assert memory[99] == 9
        with pytest.raises(BufferError):
            memory.append(1)
        region.persist(0, 100)
        with pytest.raises(errors.RangeError):
            region.persist(0, 101)
    memory.append(1)


def test_from_buffer_refuses_what_it_cannot_use():
    numpy = pytest.importorskip("numpy")
    wrong = [b"constant", 7, "text", bytearray(), numpy.zeros((4, 4))[:, 1], memoryview(b"abc")]
    for source in wrong:
        with pytest.raises(errors.BufferRefused):
            Region.from_buffer(source)
    with Region.anonymous(PAGE) as region, pytest.raises(errors.BufferRefused):
        Region.from_buffer(region)


def test_regions_are_made_by_name():
    with pytest.raises(TypeError):
        Region()
    for size in (0, -1, 1 << 64):
        with pytest.raises(errors.RangeError):
            Region.anonymous(size)


def test_flushing_from_many_threads(tmp_path):
    parts = parts_in(tmp_path, [MIB, MIB])
    region = Region.map_parts(parts)
    failures = []

    def work(number):
        try:
            with memoryview(region) as view:
                for turn in range(20):
                    at = (number * 20 + turn) * 1000
                    view[at : at + 8] = b"%08d" % at
                    region.persist(at, 8)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    region.close()
    close_all(parts)


def test_device_identity_of_a_plain_file(tmp_path):
    parts = parts_in(tmp_path, [MIB])
    assert device_identity(parts[0][0]) == (0, b"")
    close_all(parts)


# --- the copy that does not tear words -------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(
    to=st.integers(0, 40),
    source=st.integers(0, 40),
    length=st.integers(0, 40) | st.integers(0, 700),
)
def test_strict_copy_copies_exactly_the_range(to, source, length):
    data = bytes((7 * i + 3) % 251 + 1 for i in range(source + length))
    with Region.anonymous(PAGE) as region:
        region.write(to, memoryview(data)[source:])
        with memoryview(region) as view:
            expected = bytes(to) + data[source:] + bytes(PAGE - to - length)
            assert bytes(view) == expected


TORN_READER = """
import mmap, os, sys
import numpy as np

words = np.frombuffer(mmap.mmap(int(sys.argv[1]), 4096), dtype=np.uint64)[1:33]
seen = np.empty_like(words)
sys.stdout.write("ready\\n")
sys.stdout.flush()
while os.read(0, 1) == b"?":
    torn = 0
    both = set()
    for _ in range(int(sys.argv[2])):
        # Word by word: whoever copies may do it byte by byte, and see halves that never were.
        np.bitwise_or(words, 0, out=seen)
        odd = seen[(seen != 0) & (seen != 2**64 - 1)]
        torn += len(odd)
        both.update((int(seen[0] & 1), int(seen[-1] & 1)))
    sys.stdout.write(f"{torn} {len(both)}\\n")
    sys.stdout.flush()
"""


class Onlooker:
    """Another process that looks at words while they are stored."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("words")
        os.ftruncate(self.fd, PAGE)
        self.memory = mmap.mmap(self.fd, PAGE)
        self.process = subprocess.Popen(
            [sys.executable, "-c", TORN_READER, str(self.fd), "3000"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self.fd,),
            text=True,
        )
        self.said = self.process.stdout
        assert self.said.readline() == "ready\n"

    def torn_by(self, store, rounds):
        """Store zeros and ones until the other has looked often enough; count halves of words."""
        torn = saw = 0
        for _ in range(rounds):
            self.process.stdin.write("?")
            self.process.stdin.flush()
            while not select.select([self.said], [], [], 0)[0]:
                for _ in range(50):
                    store(b"\0")
                    store(b"\xff")
            found, both = map(int, self.said.readline().split())
            torn += found
            saw += both > 1
            if torn:
                break
        return torn, saw

    def close(self) -> None:
        self.process.communicate()
        self.memory.close()
        os.close(self.fd)


@pytest.mark.alone
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core sees no halves")
def test_strict_copy_tears_no_word():
    numpy = pytest.importorskip("numpy")
    onlooker = Onlooker()

    def in_halves(value):
        halves = numpy.frombuffer(onlooker.memory, dtype=numpy.uint32)[2:66]
        halves[::2] = halves[1::2] = int.from_bytes(value * 4, "little")

    try:
        with Region.from_buffer(onlooker.memory) as region:
            # As long as goes word by word: longer copies go through blocks of 32 bytes.
            torn, saw = onlooker.torn_by(lambda value: region.write(8, value * 256), rounds=8)
            # From the middle of a word on, too.
            more, _ = onlooker.torn_by(lambda value: region.write(4, value * 260), rounds=8)
        control, _ = onlooker.torn_by(in_halves, rounds=400)
    finally:
        onlooker.close()
    assert torn == more == 0
    assert saw, "the other process saw no word change"
    assert control, "halves of words would not have been seen"


def test_strict_copy_is_checked():
    with Region.anonymous(PAGE) as region:
        for at in (PAGE - 3, PAGE + 1, -1, 1 << 64):
            with pytest.raises(errors.RangeError):
                region.write(at, b"abcd")
        region.write(PAGE, b"")
        with pytest.raises(TypeError):
            region.write(0, 5)


def words_seen_while_written(file, statement, turns):
    """Have another process run a statement for two patterns in turn; return the words met."""
    size = 64 * 1024
    file.write_bytes(bytes(size))
    program = textwrap.dedent(
        """
        import os, sys
        from rpmem.memory.region import Region
        size = int(sys.argv[2])
        region = Region.map_parts([(os.open(sys.argv[1], os.O_RDWR), 0, size)])
        view = memoryview(region)
        ones, twos = bytes([1]) * size, bytes([2]) * size
        while True:
            for pattern in (ones, twos):
        """
    )
    program += " " * 8 + statement
    writer = subprocess.Popen([sys.executable, "-c", program, str(file), str(size)])
    try:
        with file.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), size, prot=mmap.PROT_READ)
        # Item by item: what copies in bulk may itself load a word in two halves.
        words = memoryview(mapped)[: size - 16].cast("Q")
        while not any(words.tolist()):
            assert writer.poll() is None
            time.sleep(0.01)
        seen = set()
        for _ in range(turns):
            seen.update(words.tolist())
            if len(seen) > 3:
                break
    finally:
        writer.kill()
        writer.wait()
        file.unlink()
    return seen


WHOLE_WORDS = {0, 0x0101010101010101, 0x0202020202020202}


@pytest.mark.parametrize("shift", [0, 3])
def test_strict_copy_never_shows_half_a_word(tmp_path, shift):
    statement = f"region.write(0, memoryview(pattern)[{shift}:size - 8])"
    seen = words_seen_while_written(tmp_path / "words", statement, 600)
    assert seen <= WHOLE_WORDS
    assert len(seen) > 1


def test_half_words_would_be_seen(tmp_path):
    statement = "for at in range(size): view[at] = pattern[at]"
    seen = words_seen_while_written(tmp_path / "words", statement, 100_000)
    assert not seen <= WHOLE_WORDS


def test_import_is_light():
    program = (
        "import sys, rpmem.memory.region; print(sorted(m for m in sys.modules if m in "
        + repr(["numpy", "paramiko", "click", "rich", "logging", "asyncio"])
    )
    result = subprocess.run(
        [sys.executable, "-c", program + "))"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_garbage_collector_leaves_the_source_alone():
    """A memoryview in a cycle would be taken apart under the region's feet."""
    code = (
        "import gc\n"
        "from rpmem.memory.region import Region\n"
        "for _ in range(3):\n"
        "    view = memoryview(bytearray(4096))[100:200]\n"
        "    region = Region.from_buffer(view)\n"
        "    cycle = [region, view]\n"
        "    cycle.append(cycle)\n"
        "    del view, region, cycle\n"
        "    gc.collect()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# --- arguments of other types ------------------------------------------------------------------


@pytest.mark.parametrize("odd", [0.5, float("nan"), "1", None, 1 + 1j, b"1", 2**64, -1])
def test_offsets_and_lengths_are_integers(odd):
    with Region.anonymous(1 << 14) as region:
        for call in (region.persist, region.flush, region.deep_persist):
            for offset, length in ((odd, 1), (0, odd)):
                with pytest.raises((TypeError, errors.RangeError)):
                    call(offset, length)
        with pytest.raises((TypeError, errors.RangeError)):
            region.write(odd, b"x")
    with pytest.raises((TypeError, errors.RangeError)):
        Region.anonymous(odd)


@pytest.mark.parametrize("part", [1, None, "x", (1, 2), (1, 2, 3, 4), (2**40, 0, 4096), (-1, 0, 1)])
def test_parts_that_are_none(part):
    with pytest.raises(errors.UsageError):
        Region.map_parts([part])
