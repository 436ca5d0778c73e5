"""Stores that tracking does not see, and what helps: naming the range, or `touched`.

What is not seen is not promised to stay unseen: a test of that says only why the remedy is needed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpmem
from tests.support.changes import works
from tests.support.changes_stores import PAGE
from tests.support.pools import PoolNode

SIZE = 4 << 20
PAGES = 64


class World:
    """A pool in a file with one array of whole pages, and a replica."""

    def __init__(self, folder: Path, mode: str, local: Any = None) -> None:
        if reason := works(mode):
            pytest.skip(f"tracking={mode!r}: {reason}")
        self.path = folder / "pool"
        self.node = PoolNode(folder / "node")
        size = SIZE if local is None else None
        self.pool = rpmem.Pool.create(
            self.path if local is None else local, size, self.node.spec(), parts=1, tracking=mode
        )
        array: Any = self.pool.array("data", (PAGES + 1) * PAGE, "u1")
        skip = -array.ctypes.data % PAGE
        self.pages = array[skip : skip + PAGES * PAGE].reshape(PAGES, PAGE)
        self.begin = self.pool.entry("data").offset + skip
        self.pool.persist()

    def there(self) -> Any:
        image = np.frombuffer(self.node.image(), np.uint8)
        return image[self.begin : self.begin + PAGES * PAGE].reshape(PAGES, PAGE)


@pytest.fixture(params=["memory", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "disk":
        return tmp_path
    found: Path = request.getfixturevalue("tmpfs")
    return found


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[..., World]]:
    made = []

    def make_one(mode: str, local: Any = None) -> World:
        made.append(World(folder, mode, local))
        assert made[-1].pool.tracking == mode
        return made[-1]

    yield make_one
    for each in made:
        each.pool.__exit__(None, None, None)


def in_child(work: Callable[[], None], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Let a forked child work once the parent has done something."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(reader, 1)
            work()
        finally:
            os._exit(0)
    meanwhile()
    os.write(writer, b"x")
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)


# --- a forked child ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["kernel", "digest"])
def test_what_a_child_stores_is_found_by_digests(make: Callable[..., World], mode: str):
    world = make(mode)

    def store() -> None:
        world.pages[3] = 7

    in_child(store)
    assert world.pool.tracking == "digest"
    world.pool.persist()
    assert (world.there()[3] == 7).all()


@pytest.mark.parametrize("mode", ["kernel", "digest"])
def test_what_a_child_stores_after_its_parent_had_looked(make: Callable[..., World], mode: str):
    world = make(mode)

    def store() -> None:
        world.pages[3] = 7

    in_child(store, world.pool.persist)
    world.pool.persist()
    assert (world.there()[3] == 7).all()
    in_child(store)
    world.pages[4] = 1
    world.pool.persist()
    np.testing.assert_array_equal(world.there(), world.pages)


def test_what_a_child_stores_is_sent_by_a_call_that_names_it(make: Callable[..., World]):
    world = make("kernel")

    def store() -> None:
        world.pages[3] = 7

    in_child(store)
    world.pool.persist(world.pages[3])
    assert (world.there()[3] == 7).all()


def test_a_child_of_shared_memory_without_a_file(make: Callable[..., World]):
    world = make("kernel", mmap.mmap(-1, SIZE))

    def store() -> None:
        world.pages[3] = 7

    in_child(store)
    world.pool.persist()
    assert (world.there()[3] == 7).all()


def test_a_child_that_only_runs_a_program_changes_nothing(make: Callable[..., World]):
    world = make("kernel")
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    world.pool.detach(0)
    world.pool.attach(world.node.spec())  # it starts a process, too
    assert world.pool.tracking == "kernel"


# --- other ways to the same file --------------------------------------------------------------


def by_another_mapping(world: World, offset: int, data: bytes) -> None:
    """As another process would do it: from here, only the mapping counts."""
    with open(world.path, "r+b") as file, mmap.mmap(file.fileno(), 0) as other:
        other[offset : offset + len(data)] = data


def by_pwrite(world: World, offset: int, data: bytes) -> None:
    with open(world.path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), data, offset)


def name_it(world: World) -> None:
    world.pool.persist(world.pages[3])


def touch_it(world: World) -> None:
    world.pool.touched(world.pages[3])
    world.pool.persist()


def touch_and_narrow(world: World) -> None:
    world.pool.touched((world.begin + 3 * PAGE, PAGE))
    world.pool.persist(world.pages[2:5], narrow=True)


WAYS = pytest.mark.parametrize("store", [by_another_mapping, by_pwrite])


@WAYS
@pytest.mark.parametrize("remedy", [name_it, touch_it, touch_and_narrow])
def test_what_comes_another_way_is_sent_when_somebody_says_so(
    make: Callable[..., World],
    store: Callable[[World, int, bytes], None],
    remedy: Callable[[World], None],
):
    world = make("kernel")
    store(world, world.begin + 3 * PAGE, b"\x07" * PAGE)
    assert (world.pages[3] == 7).all()
    world.pool.persist()
    assert not world.there()[3].any()  # the kernel watches this mapping alone
    remedy(world)
    assert (world.there()[3] == 7).all()


@WAYS
def test_digests_see_what_comes_another_way(
    make: Callable[..., World], store: Callable[[World, int, bytes], None]
):
    world = make("digest")
    store(world, world.begin + 3 * PAGE + 5, b"\x07")
    world.pool.persist()
    assert world.there()[3, 5] == 7


@pytest.mark.parametrize("mode", ["kernel", "digest", "off"])
def test_touched_says_nothing_wrong(make: Callable[..., World], mode: str):
    """Of memory that did not change, of nothing, and of what is no part of the pool."""
    world = make(mode)
    world.pool.touched(world.pages[3])
    world.pool.touched(world.pages[3, :0])
    with pytest.raises(rpmem.RangeError):
        world.pool.touched((SIZE, 8))
    world.pages[4] = 1
    world.pool.persist()
    np.testing.assert_array_equal(world.there(), world.pages)
