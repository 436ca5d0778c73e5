"""Memory that is left to its views: what they store reaches no file, and nobody notices else."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from rpmem.errors import ClosedError, PoolSetError, UsageError
from rpmem.memory.region import Region

PAGE = 4096
PAGES = 200


@pytest.fixture
def file(tmp_path):
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 2 * PAGES * PAGE)
    yield descriptor
    os.close(descriptor)


def mapped(file, parts=2):
    """So many parts of one file, the last one first."""
    length = 2 * PAGES * PAGE // parts
    return Region.map_parts([(file, k * length, length) for k in reversed(range(parts))])


def test_views_go_on_and_the_file_does_not_change(file):
    region = mapped(file)
    view = np.frombuffer(region, np.uint8)
    view[:] = 1
    view[PAGES * PAGE] = 2
    assert region.viewed
    assert region.parts == [(PAGES * PAGE, PAGES * PAGE), (0, PAGES * PAGE)]
    before = os.pread(file, 2 * PAGES * PAGE, 0)
    region.leave([file, file])
    assert (view[: PAGES * PAGE] == 1).all()
    assert view[PAGES * PAGE] == 2
    view[:] = 3
    assert os.pread(file, 2 * PAGES * PAGE, 0) == before
    assert before[0] == 2
    assert (view == 3).all()
    del view
    assert not region.viewed
    region.close()


@pytest.mark.parametrize("call", ["persist", "flush", "deep_persist"])
def test_nothing_can_be_made_durable_any_more(file, call):
    with mapped(file) as region:
        getattr(region, call)(0, PAGE)
        region.leave([file, file])
        with pytest.raises(ClosedError, match="left to its views"):
            getattr(region, call)(0, PAGE)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_thread_that_stores_meanwhile_notices_nothing(file, parts):
    """Each of its stores is in the file, or in its own memory only: none is lost.

    A part is left at once. The kernel may take milliseconds until the next one is.
    """
    for _ in range(20):
        region = mapped(file, parts)
        view = np.frombuffer(region, np.uint64)
        view[:] = 0
        over = threading.Event()
        counts = []

        def work(view=view, over=over, counts=counts):
            count = 0
            while not over.is_set():
                count += 1
                view[::512] = count
                assert (view[::512] == count).all()
            counts.append(count)

        thread = threading.Thread(target=work)
        thread.start()
        region.leave([file] * parts)
        found = np.frombuffer(os.pread(file, 2 * PAGES * PAGE, 0), np.uint64)[::512]
        over.set()
        thread.join()
        assert counts
        assert (view[::512] == counts[0]).all()
        for part in np.split(found, parts):
            assert part.max() - part.min() <= 1
        del view


def test_what_cannot_be_left():
    with Region.anonymous(PAGE) as region, pytest.raises(UsageError):
        region.leave([])
    with Region.from_buffer(bytearray(PAGE)) as region, pytest.raises(UsageError):
        region.leave([0])


def test_a_wrong_number_of_files_or_one_that_cannot_be_mapped(file):
    with mapped(file) as region:
        with pytest.raises(UsageError, match="1 descriptors for 2 parts"):
            region.leave([file])
        region.persist(0, PAGE)
    with mapped(file) as region:
        reading, writing = os.pipe()
        with pytest.raises(PoolSetError, match="cannot separate memory from a part"):
            region.leave([file, reading])
        # Who knows what is still shared.
        with pytest.raises(ClosedError):
            region.persist(0, PAGE)
        os.close(reading)
        os.close(writing)
