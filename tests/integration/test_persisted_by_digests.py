"""persist() where pages are found by their digests, over a replica behind a child process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import rpmem

MIB = 1 << 20
#: Bytes of the array of these tests: more than one window of copies, and a piece of another.
LENGTH = 17 * MIB + 40


class Both:
    """A pool with one array, and a replica."""

    def __init__(self, folder: Path) -> None:
        (folder / "target").mkdir()
        spec = f"local:{folder / 'target'} copy.set"
        self.pool = rpmem.Pool.create(folder / "pool", 20 * MIB, spec, parts=1, tracking="digest")
        self.array = self.pool.array("a", LENGTH, np.uint8)

    def same(self) -> bool:
        """Whether the replica has the array as it is here."""
        return np.array_equal(self.pool.read(self.array), self.array)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    try:
        made = Both(tmp_path)
    except rpmem.MissingExtension as missing:
        pytest.skip(str(missing))
    with made.pool:
        made.array[:] = np.frombuffer(os.urandom(LENGTH), np.uint8)
        made.pool.persist()
        assert made.pool.tracking == "digest"
        assert made.same()
        yield made


def test_what_changed_is_there(both):
    for places in ([5], [0, LENGTH - 1], range(0, LENGTH, 99_991), range(8 * MIB, 9 * MIB)):
        for at in places:
            both.array[at] ^= 0xFF
        both.pool.persist()
        assert both.same()
        both.pool.persist()


def test_former_bytes_are_there_again(both):
    """The digest of a page says nothing once another call has sent the page."""
    page = both.array[MIB : MIB + 4096]
    former = page.copy()
    for send in (
        lambda: both.pool.persist(page),
        lambda: both.pool.persist(page[:8]),
        lambda: both.pool.persist_many([page]),
        lambda: both.pool.deep_persist(page),
        lambda: both.pool.persist(page, relaxed=True),
        lambda: both.pool.persist(page, narrow=True),
        lambda: (both.pool.flush(page), both.pool.drain()),
        lambda: both.pool.flush(page),
    ):
        page[:] = 7
        send()
        page[:] = former
        both.pool.persist()
        assert both.same()
        both.pool.drain()
        assert both.same()


def test_threads_that_store_and_persist_beside_it(both):
    """What a thread's persist of a range acknowledged is not replaced by an older copy."""
    stop = threading.Event()
    wrong: list[str] = []

    def work(number: int) -> None:
        mine = both.array[number * MIB : number * MIB + 64]
        for value in range(250):
            mine[:] = value
            both.pool.persist(mine)
            there = both.pool.read(mine)
            if not np.array_equal(there, mine):
                wrong.append(f"thread {number}: {there[0]}, not {value}")
        stop.set()

    def everything() -> None:
        while not stop.is_set():
            both.pool.persist()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    threads.append(threading.Thread(target=everything))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    both.pool.persist()
    assert both.same()
