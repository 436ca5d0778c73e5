"""A medium that refused once: no call after it, and none beside it, may say that all is well."""

from __future__ import annotations

import errno

import pytest

from rpmem.errors import FlushFailed
from rpmem.memory.region import Region
from tests.support.compiled import compiled
from tests.support.preload import run_with

_BEGIN = """
import ctypes, os, sys, tempfile, threading
from rpmem.memory.region import Region
from rpmem.errors import FlushFailed

PAGE = 4096
shim = ctypes.CDLL(None)
count = lambda name: ctypes.c_ulong.in_dll(shim, name).value
folder = tempfile.mkdtemp(dir=sys.argv[1])

def part(name, pages=8):
    fd = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, pages * PAGE)
    return fd, 0, pages * PAGE

def outcome(call, *arguments):
    try:
        call(*arguments)
    except FlushFailed as error:
        return str(error.errno)
    return "ok"
"""


def run(tmp_path, program):
    return run_with("refusing_msync", _BEGIN + program, tmp_path).split()


def test_what_was_refused_once_stays_refused(tmp_path):
    seen = run(
        tmp_path,
        """
region = Region.map_parts([part("a"), part("b")])
view = memoryview(region)
print(outcome(region.persist, PAGE, PAGE), getattr(region, "refused", "?"))
view[0] = ord("E")
print(outcome(region.persist, 0, 8), getattr(region, "refused", "?"))
for call in region.persist, region.flush, region.deep_persist:
    # The same bytes, others, those of another file, and none.
    print(*(outcome(call, at, n) for at, n in [(0, 8), (3 * PAGE, 8), (9 * PAGE, 8), (0, 0)]))
print(outcome(region.drain))
view.release()
region.close()
""",
    )
    assert seen == ["ok", "0", "5", "5", *["5"] * 13]


@pytest.mark.parametrize("verb", ["persist", "flush", "deep_persist"])
def test_a_call_beside_the_one_that_was_told_is_not_believed(tmp_path, verb):
    """The kernel tells one of two threads; the other comes back first, and with success."""
    seen = run(
        tmp_path,
        f"""
region = Region.map_parts([part("a")])
view = memoryview(region)
view[0] = ord("W")
told = []
first = threading.Thread(target=lambda: told.append(outcome(region.persist, 0, 8)))
first.start()
while count("msync_begun") == 0:
    pass
print(outcome(region.{verb}, 4 * PAGE, 8))
first.join()
print(*told, outcome(region.drain))
""",
    )
    assert seen == ["5", "5", "5"]


def test_calls_beside_each_other_all_end(tmp_path):
    """Whoever waits for calls under way is not kept by those that begin later."""
    seen = run(
        tmp_path,
        """
region = Region.map_parts([part("a", 64)])
stop, done = threading.Event(), []
def work(number):
    while not stop.is_set():
        region.persist(number * PAGE, PAGE)
        done.append(number)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for each in threads:
    each.start()
while len(done) < 2000:
    pass
stop.set()
for each in threads:
    each.join()
print(sorted(set(done)) == list(range(8)), outcome(region.drain))
""",
    )
    assert seen == ["True", "ok"]


def test_a_call_beside_the_region_can_spoil_it(tmp_path):
    seen = run(
        tmp_path,
        """
region = Region.map_parts([part("a")])
region.refuse(28)
region.refuse(5)
print(outcome(region.persist, 0, 8), outcome(region.drain), region.refused)
""",
    )
    assert seen == ["28", "28", "28"]


def test_what_was_called_persistent_memory_is_asked_all_the_same_when_it_must_be_deep(tmp_path):
    """A file on a disk that passes for persistent memory by force: only msync makes it durable."""
    seen = run(
        tmp_path,
        """
region = Region.map_parts([part("a")], True)
before = count("msync_bytes")
print(region.medium, outcome(region.persist, PAGE, PAGE), count("msync_bytes") - before)
print(outcome(region.deep_persist, PAGE, PAGE), count("msync_bytes") - before)
memoryview(region)[0] = ord("E")
print(outcome(region.deep_persist, 0, 8))
""",
    )
    assert seen == ["pmem", "ok", "0", "ok", "4096", "5"]


def test_another_region_of_the_same_process_is_not_affected(tmp_path):
    seen = run(
        tmp_path,
        """
bad, good = Region.map_parts([part("a")]), Region.map_parts([part("b")])
memoryview(bad)[0] = ord("E")
print(outcome(bad.persist, 0, 8), outcome(good.persist, 0, 8), outcome(good.drain))
""",
    )
    assert seen == ["5", "ok", "ok"]


def test_several_parts_are_all_flushed_though_the_first_refuses(tmp_path):
    seen = run(
        tmp_path,
        """
region = Region.map_parts([part("a"), part("b"), part("c")])
memoryview(region)[0] = ord("E")
print(outcome(region.persist, 0, 24 * PAGE), count("msync_calls"), count("msync_bytes"))
""",
    )
    assert seen == ["5", "2", str(16 * 4096)]


def hooked(tmp_path, refuses):
    """Return a region of two parts of a page, and the calls its medium got."""
    calls = []

    def call(verb, offset, length):
        calls.append((verb, offset))
        return errno.EIO if refuses(verb, offset) else 0

    with open(tmp_path / "a", "w+b") as one, open(tmp_path / "b", "w+b") as other:
        for file in (one, other):
            file.truncate(4096)
        region = Region.map_parts([(one.fileno(), 0, 4096), (other.fileno(), 0, 4096)])
    compiled("_hooked_media").hook(region, call)
    return region, calls


@pytest.mark.parametrize("verb", ["persist", "flush", "deep_persist"])
@pytest.mark.parametrize("bad", [0, 4096])
def test_a_refusal_of_any_part_is_one_of_all(tmp_path, verb, bad):
    region, calls = hooked(tmp_path, lambda _, offset: offset == bad)
    with pytest.raises(FlushFailed):
        getattr(region, verb)(0, 8192)
    assert region.refused == errno.EIO
    assert len(calls) == 2
    region.close()


def test_a_medium_that_refused_is_not_asked_again(tmp_path):
    region, calls = hooked(tmp_path, lambda _, offset: offset == 0)
    with pytest.raises(FlushFailed):
        region.persist(0, 8)
    calls.clear()
    for verb in ("persist", "flush", "deep_persist"):
        with pytest.raises(FlushFailed):
            getattr(region, verb)(4096, 8)
    assert calls == []
    region.close()
