"""Calls whose bytes come from another place, which is used again as soon as they return."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from rpmem._core import Replicator
from rpmem.errors import (
    BufferRefused,
    ClosedError,
    DeadlineExceeded,
    FlushFailed,
    RangeError,
    RpmemError,
    UsageError,
)
from rpmem.memory.changes.lender import Lender
from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region
from tests.support.alarm import Alarm, alarm
from tests.support.posts import EVERY, LONG, SIZE, WINDOW, Bench
from tests.support.without import is_built

#: Where the copies of these tests begin, and how long they are.
AT, LENGTH = 64 << 10, 512 << 10
NONE = np.zeros((0, 2), np.uint64)


def ranges(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.uint64)


@pytest.mark.parametrize("step", EVERY)
def test_the_bytes_are_those_of_the_copy(step):
    bench = Bench(step)
    copied = os.urandom(LENGTH)
    pairs = [(AT, 8), (AT + 4096, 4096), (AT + 9001, 17), (AT + 65536, 300_001)]
    pairs += [(AT + LENGTH - 4096, 4096)]
    bench.core.persist_lent(ranges(*pairs), Lender(copied, AT))
    for offset, length in pairs:
        there = bench.lane.read_pool(offset, length)
        assert there == copied[offset - AT : offset - AT + length]
    # And nothing beside them.
    stored = SIZE - bench.lane.read_pool(0, SIZE).count(0)
    assert stored <= sum(length for _, length in pairs)


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("step", EVERY)
def test_no_post_refers_to_the_copy(step, words):
    """Not even where the pool's own long ranges are WRITTEN."""
    bench = Bench(step, words=words)
    copied = os.urandom(LENGTH)
    for pairs in ([LONG], [(8192, 8)], [(8192, 8), (16384, 100_000), (200_000, 64)]):
        there = ranges(*((AT + offset, length) for offset, length in pairs))
        bench.core.persist_lent(there, Lender(copied, AT))
        assert set(bench.kinds()) == {"send"}
        assert bench.lane.gathered == 0


@pytest.mark.parametrize("step", EVERY)
def test_strict_data_of_the_pool_is_gathered_as_ever(step):
    bench = Bench(step)
    bench.core.persist(LONG)
    assert bench.lane.gathered == (0 if "pmdk" in step else 1)


def test_strict_data_of_the_pool_is_written_where_words_stay_whole():
    bench = Bench("send-after-write", words=True)
    bench.core.persist(LONG)
    assert bench.kinds() == ["write", "send"]
    assert bench.lane.gathered == 0


def test_messages_are_filled():
    bench = Bench("send-after-write")
    copied = bytes(LENGTH)
    pairs = [(AT + number * 65536, 32768) for number in range(6)]
    bench.core.persist_lent(ranges(*pairs), Lender(copied, AT))
    # Two halves of 64 KiB do not quite fit into a message of 64 KiB with what describes them.
    assert bench.lane.messages == 4


@pytest.mark.parametrize("step", ["flush", "send-after-write"])
def test_a_word_that_is_not_in_the_pool_goes_inside_a_message(step):
    bench = Bench(step)
    bench.core.put(8192, b"12345678")
    assert bench.kinds() == ["send"]
    assert bench.lane.gathered == 0


def test_ranges_lie_in_the_copy_and_in_the_pool():
    bench = Bench("send-after-write", floor=4096)
    copied = bytes(LENGTH)
    bench.core.persist_lent(ranges((AT, LENGTH)), Lender(copied, AT))
    bench.core.persist_lent(ranges((AT, 1), (AT + LENGTH - 1, 1)), Lender(copied, AT))
    bench.lane.posts()
    most = (1 << 64) - 1
    wrong = [(AT - 1, 8), (AT + LENGTH - 7, 8), (AT + LENGTH, 1), (AT, LENGTH + 1), (AT, 0)]
    wrong += [(AT - 1, 1), (most, 2), (AT, most), (0, SIZE)]
    for pair in wrong:
        with pytest.raises(RangeError):
            bench.core.persist_lent(ranges((AT, 8), pair), Lender(copied, AT))
    # The copy may reach beyond the pool or into its header, what is sent of it may not.
    for pair, at in [((4088, 16), 0), ((SIZE - 8, 16), SIZE - 4096), ((SIZE, 8), SIZE - 4096)]:
        with pytest.raises(RangeError):
            bench.core.persist_lent(ranges(pair), Lender(copied, at))
    with pytest.raises(RangeError):
        bench.core.persist_lent(ranges((AT, 8)), Lender(copied, most))
    for whole in [(0, SIZE), (4096, SIZE), (SIZE, 1)]:
        with pytest.raises(RangeError):
            bench.core.persist_lent(ranges((AT, 8)), Lender(copied, AT), whole)
    for odd in (np.zeros(2, np.uint64), np.zeros((1, 2), np.int64), [(AT, 8)]):
        with pytest.raises(BufferRefused):
            bench.core.persist_lent(odd, Lender(copied, AT))
    assert bench.lane.posts() == []


@pytest.mark.parametrize("step", EVERY)
def test_it_returns_only_once_all_is_answered(step):
    bench = Bench(step)
    bench.lane.withhold(answers=True)
    with pytest.raises(DeadlineExceeded):
        bench.core.persist_lent(ranges((AT, 8)), Lender(bytes(LENGTH), AT))


@pytest.mark.parametrize("step", EVERY)
def test_interrupted_it_is_unsettled_and_a_drain_waits_for_it(step):
    bench = Bench(step, timeout=20.0)
    pairs = [(AT, 100_000), (AT + 200_000, 64)]
    bench.lane.withhold(posts=True, answers=True)
    with pytest.raises(Alarm), alarm():
        bench.core.persist_lent(ranges(*pairs), Lender(os.urandom(LENGTH), AT))
    assert bench.core.take_unsettled() == pairs
    bench.lane.withhold()
    bench.core.persist(None)
    bench.core.drain()
    assert bench.same(0, SIZE)


# --- copied when the call's turn has come ------------------------------------------------------


class Copies:
    """Pages `AT` and following, lent by digests of a bench's region."""

    def __init__(self, bench: Bench, pages: int = 1) -> None:
        if not is_built("rpmem.memory.changes.digests"):
            pytest.skip("rpmem.memory.changes.digests is not built here")
        from rpmem.memory.changes.digests import PageDigests

        self.core = bench.core
        self.pages = PageSet(SIZE)
        self.length = pages * self.pages.page_size
        self.pages.add(AT, self.length)
        self.digests = PageDigests(bench.region)
        self.content = bytearray(self.length)

    def send(self, lane: int | None = None) -> None:
        lender = self.digests.lend(self.pages, AT, self.length, self.content)
        self.core.persist_lent(ranges((AT, self.length)), lender)
        self.digests.confirm(self.pages, AT, self.length)

    def differ(self) -> bool:
        found = PageSet(SIZE)
        self.digests.changed(found, AT, self.length)
        return bool(found)


def store(bench: Bench, offset: int, content: bytes) -> None:
    with memoryview(bench.region) as view:
        view[offset : offset + len(content)] = content


@pytest.mark.parametrize("step", EVERY)
def test_pages_are_copied_sent_and_known(step):
    bench = Bench(step)
    copies = Copies(bench, pages=20)
    copies.send()
    assert bench.same(AT, copies.length)
    assert copies.content == bench.lane.read_pool(AT, copies.length)
    assert not copies.differ()
    store(bench, AT + 5000, b"stored")
    assert copies.differ()


def test_what_was_not_acknowledged_is_not_known():
    bench = Bench("send-after-write")
    copies = Copies(bench)
    copies.send()
    bench.lane.withhold(answers=True)
    with pytest.raises(DeadlineExceeded):
        copies.send()
    assert copies.differ()


def test_no_byte_is_older_than_what_another_call_has_sent():
    """Copied while another call sends the same bytes, they could replace newer ones."""
    bench = Bench("send-after-write", lanes=2, timeout=20.0)
    copies = Copies(bench)
    bench.lane.withhold(answers=True)
    other = threading.Thread(target=bench.core.persist, args=((AT, 8),), kwargs={"lane": 0})
    other.start()
    while not bench.lane.messages:
        time.sleep(0.001)
    sender = threading.Thread(target=copies.send)
    sender.start()
    time.sleep(0.05)
    assert copies.content == bytes(copies.length)
    store(bench, AT, b"newer by")
    bench.lane.withhold()
    other.join()
    sender.join()
    assert copies.content[:8] == b"newer by"


@pytest.mark.parametrize("lanes", [1, 2])
def test_no_flush_that_was_held_back_comes_after_a_copy(lanes):
    """Else the drain sends what the memory has by then, of which no digest is known."""
    bench = Bench("send-after-write", lanes=lanes)
    copies = Copies(bench)
    bench.core.flush((AT, 8), lane=0)
    assert bench.lane.messages == 0
    copies.send()
    before = bench.lane.read_pool(AT, 8)
    store(bench, AT, b"newer by")
    bench.core.drain()
    assert bench.lane.read_pool(AT, 8) == before


# --- the local medium, and calls with nothing to send ------------------------------------------


def local(*benches: Bench, **wishes: object) -> Replicator:
    """Make a core that is local, too, with the replicas of benches."""
    first = benches[0]
    groups = [bench.group for bench in benches]
    return Replicator(first.region, groups, local=True, floor=4096, timeout_s=0.05, **wishes)


def nothing(core: Replicator) -> list:
    """Return the ways of having nothing to send."""
    return [
        core.confirm,
        lambda: core.persist_lent(NONE, None),
        lambda: core.persist_lent(NONE, None, (4096, SIZE - 4096)),
    ]


@pytest.mark.parametrize("step", EVERY)
def test_without_ranges_nothing_is_sent(step):
    bench = Bench(step)
    for call in nothing(local(bench)):
        call()
    assert bench.lane.posts() == []


@pytest.mark.parametrize("how", ["aborted", "expired"])
def test_a_lost_replica_is_an_error_although_nothing_is_sent(how):
    good, lost = Bench("send-after-write"), Bench("send-after-write")
    core = local(good, lost)
    if how == "aborted":
        lost.group.abort()
    else:
        lost.lane.withhold(answers=True)
        with pytest.raises(DeadlineExceeded):
            core.persist((4096, 8))
    good.lane.posts()
    lost.lane.posts()
    for call in nothing(core):
        with pytest.raises(RpmemError, match="fault -6" if how == "aborted" else "fault -5"):
            call()
    assert good.lane.posts() == lost.lane.posts() == []


def test_a_local_medium_that_refused_is_an_error():
    bench = Bench("send-after-write")
    core = local(bench)
    bench.region.refuse(5)
    for call in (core.confirm, nothing(core)[2]):
        with pytest.raises(FlushFailed):
            call()
    with pytest.raises(FlushFailed):
        core.persist_lent(ranges((AT, 8)), Lender(b"12345678", AT), (4096, 8))
    # The replica has it all the same.
    assert bench.lane.read_pool(AT, 8) == b"12345678"
    # A core that is not local does not ask.
    bench.core.confirm()


def test_without_replicas_only_the_local_part_is_left():
    region = Region.anonymous(SIZE)
    core = Replicator(region, [], local=True, floor=4096)
    core.persist_lent(ranges((AT, 8)), Lender(bytes(8), AT), (4096, SIZE - 4096))
    core.confirm()
    region.refuse(5)
    with pytest.raises(FlushFailed):
        core.persist_lent(ranges((AT, 8)), Lender(bytes(8), AT), (4096, SIZE - 4096))


def test_a_pool_that_is_only_read_confirms_nothing():
    core = Replicator(Region.from_buffer(bytes(SIZE), writable=False), [], local=True)
    with pytest.raises(UsageError):
        core.confirm()


def test_a_closed_core_confirms_nothing():
    bench = Bench("send-after-write")
    bench.core.close()
    for call in nothing(bench.core):
        with pytest.raises(ClosedError):
            call()


def test_the_window_is_kept():
    bench = Bench("send-after-write")
    bench.lane.withhold(answers=True)
    with pytest.raises(DeadlineExceeded):
        bench.core.persist_lent(ranges((AT, LENGTH)), Lender(bytes(LENGTH), AT))
    assert bench.lane.messages == WINDOW
