"""When a page is pending, and what takes it out: copies fail and wait when a test says so.

`Copies` here is memory that gets what it is sent; it calls back before and after each send.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rpmem.errors import ReplicaLost
from rpmem.memory.changes.pageset import PageSet
from rpmem.memory.region import Region
from rpmem.pool.tracking import digested, tracking
from rpmem.pool.tracking.noted import Noted
from rpmem.pool.tracking.tracking import Tracking, wanted_of
from tests.support.compiled import compiled
from tests.support.kernel import tells_no_stores

PAGE = mmap.PAGESIZE
FLOOR = 2 * PAGE
SIZE = 64 * PAGE
LONG_S = 30.0


def usable(mode: str) -> bool:
    if mode == "kernel":
        return not tells_no_stores()
    return tracking.without_kernel() == "digest"


MODES = [
    pytest.param(mode, marks=pytest.mark.skipif(not usable(mode), reason=f"no {mode} tracking"))
    for mode in ("kernel", "digest")
]
DIGEST, KERNEL = MODES[1:], MODES[:1]


class Copies:
    """One replica and the local medium, as `Tracking` reaches them."""

    def __init__(self, region: Region, skew: int) -> None:
        self.joins = 0
        self.absent: tuple[bytes, ...] = ()
        self.replicas: list[object] = [object()]
        self.there = bytearray(region.size)
        self.here = bytearray(region.size)
        self.verbs: list[str] = []
        self.sent: list[tuple[int, int]] = []
        #: Called with the number of the send, before anything is sent, and when it has arrived.
        self.before: Callable[[int], None] = lambda number: None
        self.arrived: Callable[[int], None] = lambda number: None
        self.marks: PageSet | None = None
        self.staging: Callable[[], Any] = lambda: b""
        self._region = region
        self._sends = 0

    def mark_sent(self, pages: PageSet) -> None:
        self.marks = pages

    def call(self, verb: str, *arguments: Any, **_: Any) -> Any:
        if verb == "ranges_of":
            return [arguments[0]] if isinstance(arguments[0], tuple) else list(arguments[0])
        if verb == "check_usable":
            return None
        self.verbs.append(verb)
        number = self._sends
        if verb in ("persist", "persist_many", "persist_lent"):
            self._sends += 1
            self.before(number)
        if verb == "persist":
            self._named([(FLOOR, self._region.size - FLOOR)])
        elif verb == "persist_many":
            self._named([(int(a), int(b)) for a, b in arguments[0]])
        elif verb == "persist_lent":
            self._lent(*arguments)
        if number != self._sends:
            self.arrived(number)
        return None

    def _named(self, ranges: list[tuple[int, int]]) -> None:
        with memoryview(self._region) as memory:
            for begin, length in ranges:
                self.there[begin : begin + length] = memory[begin : begin + length]
                self.here[begin : begin + length] = memory[begin : begin + length]
                if self.marks is not None:
                    self.marks.add(begin, length)
        self.sent += ranges

    def _lent(self, ranges: Any, lender: Any, whole: tuple[int, int]) -> None:
        if lender is not None:
            lender.copy()
        for offset, length in ranges:
            begin, count = int(offset), int(length)
            at = begin - lender.offset
            self.there[begin : begin + count] = self.staging()[at : at + count]
            self.sent.append((begin, count))
        with memoryview(self._region) as memory:
            begin, count = whole
            self.here[begin : begin + count] = memory[begin : begin + count]


class World:
    """Memory, its copies, and what tracks it."""

    def __init__(self, mode: str, *, skew: int = 0, mark: int = SIZE) -> None:
        self.room = mmap.mmap(-1, SIZE + PAGE)
        self.region = Region.from_buffer(memoryview(self.room)[skew : skew + SIZE])
        self.mark = mark
        self.noted = Noted()
        self.copies = Copies(self.region, skew)
        self.tracking = Tracking(
            self.region,
            self.copies,
            floor=FLOOR,
            size=SIZE,
            mark=lambda: self.mark,
            noted=self.noted,
            wanted=wanted_of(mode),
        )
        self.copies.staging = lambda: self.tracking._way._staging  # type: ignore[union-attr]
        self.memory = np.frombuffer(self.region, np.uint8)
        compiled("_hooked_media").hook(self.region, self._flush)

    def _flush(self, _: str, offset: int, length: int) -> None:
        self.copies.here[offset : offset + length] = self.memory[offset : offset + length].tobytes()

    def persist(self) -> None:
        self.copies.sent.clear()
        self.copies.verbs.clear()
        self.tracking.persist(relaxed=False)

    def persist_changed(self, begin: int, length: int) -> None:
        self.copies.sent.clear()
        self.copies.verbs.clear()
        self.tracking.persist_changed((begin, length), relaxed=False)

    def store(self, page: int, value: int, at: int = 100, length: int = 8) -> None:
        self.memory[page * PAGE + at : page * PAGE + at + length] = value

    def pages_sent(self) -> set[int]:
        return {
            page
            for begin, length in self.copies.sent
            for page in range(begin // PAGE, (begin + length - 1) // PAGE + 1)
        }

    def check(self) -> None:
        """All that may change is everywhere, byte for byte."""
        for copy in (self.copies.there, self.copies.here):
            np.testing.assert_array_equal(
                np.frombuffer(copy, np.uint8)[FLOOR:], self.memory[FLOOR:]
            )


@pytest.fixture
def world(mode: str, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(digested, "WINDOW", 8 * PAGE)
    made = World(mode)
    made.persist()
    return made


class Call:
    """A call in a thread of its own, of which copies tell when it waits."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=call, daemon=True)
        self._thread.start()

    def is_over(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


# --- what is sent -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("skew", [0, 272])
def test_the_first_call_sends_what_is_in_use_and_the_next_ones_what_changed(mode: str, skew: int):
    world = World(mode, skew=skew, mark=20 * PAGE)
    world.memory[:] = 5
    world.memory[20 * PAGE :] = 0
    world.persist()
    assert world.pages_sent() >= set(range(2, 20))
    assert world.pages_sent() <= set(range(2, 21))
    world.check()
    world.persist()
    # Pages that the region has only parts of are always sent.
    assert world.pages_sent() <= ({63} if skew else set())
    world.store(7, 6, at=600)
    world.persist()
    assert len(world.pages_sent() - {63}) in (1, 2)
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_what_comes_into_use_is_sent_and_then_seen(mode: str):
    world = World(mode, mark=20 * PAGE)
    world.persist()
    # Nobody saw these stores, as nobody looked there.
    world.memory[20 * PAGE : 30 * PAGE] = 9
    world.mark = 30 * PAGE
    world.persist_changed(5 * PAGE, PAGE)
    world.persist()
    world.check()
    world.store(25, 3)
    world.persist()
    assert world.pages_sent() == {25}
    world.check()


@pytest.mark.parametrize("mode", KERNEL)
def test_without_changes_copies_are_asked_how_they_are(world: World):
    world.persist()
    assert world.copies.verbs == ["confirm"]
    world.persist_changed(FLOOR, PAGE)
    assert world.copies.verbs == ["confirm"]


@pytest.mark.parametrize("mode", DIGEST)
def test_without_changes_everything_is_flushed_here(world: World):
    """A digest says nothing about what is durable here: of bytes that come back, others were."""
    world.copies.here[:] = bytes(SIZE)
    world.memory[:] = 4
    world.persist()
    for narrow in (False, True):
        world.copies.here[FLOOR + 5] = 77  # what the system wrote in the meantime
        if narrow:
            world.persist_changed(FLOOR, PAGE)
        else:
            world.persist()
        assert world.copies.sent == []
        world.check()


def test_off_sends_everything():
    world = World("off")
    world.persist()
    world.store(7, 6)
    world.tracking.touched((7 * PAGE, 8))
    world.persist()
    assert world.copies.verbs == ["persist"]
    world.persist_changed(7 * PAGE, 8)
    assert world.copies.sent == [(7 * PAGE, 8)]


@pytest.mark.parametrize("mode", MODES)
def test_what_was_noted_is_sent_although_it_did_not_change(world: World):
    world.noted.note(9 * PAGE + 1, 2)
    world.tracking.touched((11 * PAGE, PAGE + 1))
    world.persist()
    assert world.pages_sent() == {9, 11, 12}
    world.persist()
    assert world.pages_sent() == set()


# --- calls that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", [ReplicaLost("cut"), KeyboardInterrupt()], ids=["lost", "signal"])
@pytest.mark.parametrize("moment", ["before", "arrived"])
@pytest.mark.parametrize("nth", [0, 1])
def test_what_a_failed_call_was_to_send_is_sent_by_the_next(
    world: World, error: BaseException, moment: str, nth: int
):
    """Also what it had sent: without an acknowledgement nobody knows."""
    world.store(7, 6)
    world.store(30, 6)
    first = world.copies._sends

    def fail(number: int) -> None:
        if number == first + min(nth, 0 if world.tracking.mode == "kernel" else 1):
            raise error

    setattr(world.copies, moment, fail)
    with pytest.raises(type(error)):
        world.persist()
    setattr(world.copies, moment, lambda number: None)
    # A second call with nothing new to find.
    world.persist()
    assert 30 in world.pages_sent()
    assert 7 in world.pages_sent() or (nth and world.tracking.mode == "digest")
    world.check()
    world.persist()
    assert world.pages_sent() == set()


@pytest.mark.parametrize("mode", MODES)
def test_what_a_failed_narrow_call_was_to_send_is_sent_by_the_next(world: World):
    world.store(7, 6)

    def fail(number: int) -> None:
        raise ReplicaLost("cut")

    world.copies.before = fail
    with pytest.raises(ReplicaLost):
        world.persist_changed(7 * PAGE, PAGE)
    world.copies.before = lambda number: None
    world.persist()
    assert world.pages_sent() == {7}
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_the_first_call_fails(mode: str):
    world = World(mode)
    world.memory[:] = 5

    def fail(number: int) -> None:
        raise ReplicaLost("cut")

    world.copies.before = fail
    with pytest.raises(ReplicaLost):
        world.persist()
    world.copies.before = lambda number: None
    world.persist()
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_a_look_that_is_interrupted(world: World, monkeypatch: pytest.MonkeyPatch):
    world.store(7, 6)
    way = world.tracking._way
    look = type(way).look

    def interrupted(self: Any, pages: PageSet, offset: int, length: int) -> None:
        look(self, pages, offset, length)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(way), "look", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.persist()
    world.persist()
    world.check()


# --- pages that are sent in part --------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_page_that_was_sent_in_part_stays_pending(world: World):
    world.memory[7 * PAGE : 10 * PAGE] = 6
    world.persist_changed(7 * PAGE + 100, 2 * PAGE)
    assert world.copies.sent == [(7 * PAGE + 100, 2 * PAGE)]
    world.persist()
    assert world.pages_sent() >= {7, 9}
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_only_what_changed_of_a_range_is_sent(world: World):
    world.store(7, 6)
    world.store(30, 6)
    world.persist_changed(6 * PAGE, 10 * PAGE)
    assert world.pages_sent() == {7}
    world.persist()
    assert world.pages_sent() >= {30}
    world.check()


@pytest.mark.parametrize("mode", KERNEL)
def test_a_page_that_was_sent_as_a_whole_is_pending_no_longer(world: World):
    world.memory[7 * PAGE : 10 * PAGE] = 6
    world.persist_changed(7 * PAGE, 2 * PAGE)
    world.persist()
    assert world.pages_sent() == {9}


# --- stores while a call is under way ---------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("moment", ["before", "arrived"])
def test_a_store_during_a_send(world: World, moment: str):
    """Once a page was looked at, a store to it is seen by the next call, sent or not."""
    world.store(7, 2)

    def store(number: int) -> None:
        world.store(7, 3)
        world.store(30, 3)

    setattr(world.copies, moment, store)
    world.persist()
    setattr(world.copies, moment, lambda number: None)
    world.persist()
    world.check()
    # What it had when it was looked at, or when it had been sent.
    for value in (2, 3):
        world.store(7, value)
        world.persist()
        world.check()


@pytest.mark.parametrize("mode", DIGEST)
def test_what_was_sent_past_the_digests_is_sent_again(world: World):
    for way in ("named", "joined"):
        world.store(7, 2)
        world.persist()
        world.store(7, 3)
        if way == "named":
            world.copies.call("persist_many", [(7 * PAGE, PAGE)])
        else:
            world.copies.there[:] = world.memory.tobytes()
            world.copies.joins += 1
        world.store(7, 2)
        world.persist()
        world.check()


@pytest.mark.parametrize("mode", DIGEST)
def test_what_is_sent_by_name_while_a_call_sends_its_copy(world: World):
    """Whichever of them came last: the call must not take the page for known."""
    world.store(7, 2)
    world.copies.arrived = lambda number: None

    def name_it(number: int) -> None:
        world.copies.arrived = lambda number: None
        world.store(7, 3)
        world.copies.call("persist_many", [(7 * PAGE, PAGE)])
        world.store(7, 2)

    world.copies.arrived = name_it
    world.persist()
    world.persist()
    world.check()


# --- threads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("narrow", [False, True])
def test_nobody_returns_before_what_another_call_took_is_acknowledged(world: World, narrow: bool):
    sending, go_on = threading.Event(), threading.Event()

    def wait(number: int) -> None:
        sending.set()
        assert go_on.wait(LONG_S)

    world.store(7, 6)
    world.copies.before = wait
    first = Call(world.persist)
    assert sending.wait(LONG_S)
    second = Call(
        (lambda: world.tracking.persist_changed((7 * PAGE, PAGE), relaxed=False))
        if narrow
        else (lambda: world.tracking.persist(relaxed=False))
    )
    assert not second.is_over(0.2)
    go_on.set()
    assert first.is_over(LONG_S)
    assert second.is_over(LONG_S)
    world.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("narrow", [False, True])
def test_a_call_takes_out_no_page_that_another_one_found(world: World, narrow: bool):
    """One call is acknowledged, while another one that found more fails."""
    sending, go_on = threading.Event(), threading.Event()
    first = world.copies._sends
    failed = []

    def wait_or_fail(number: int) -> None:
        if number > first:
            raise ReplicaLost("cut")
        sending.set()
        assert go_on.wait(LONG_S)

    def fail() -> None:
        try:
            if narrow:
                world.tracking.persist_changed((30 * PAGE, PAGE), relaxed=False)
            else:
                world.tracking.persist(relaxed=False)
        except ReplicaLost:
            failed.append(True)

    world.store(7, 6)
    world.copies.arrived = wait_or_fail
    succeeds = Call(world.persist)
    assert sending.wait(LONG_S)
    world.store(30, 6)
    fails = Call(fail)
    assert not fails.is_over(0.2)
    go_on.set()
    assert succeeds.is_over(LONG_S)
    assert fails.is_over(LONG_S)
    assert failed
    world.copies.arrived = lambda number: None
    world.copies.there[30 * PAGE : 31 * PAGE] = bytes(PAGE)
    world.persist()
    world.check()


# --- forks, and kernels that stop telling -----------------------------------------------------


@pytest.mark.parametrize("mode", KERNEL)
def test_after_a_fork_digests_are_compared(world: World, monkeypatch: pytest.MonkeyPatch):
    if not usable("digest"):
        pytest.skip("no digest tracking")
    before = tracking.forks()
    monkeypatch.setattr(tracking, "forks", lambda: before + 1)
    assert world.tracking.mode == "digest"
    # Whatever a child stored by now: nothing that the kernel says counts.
    world.persist()
    assert world.pages_sent() == set(range(2, 64))
    assert "persist_many" not in world.copies.verbs
    world.persist()
    assert world.pages_sent() == set()
    world.store(7, 6)
    world.persist()
    assert world.pages_sent() == {7}
    world.check()


@pytest.mark.parametrize("mode", KERNEL)
def test_a_fork_between_calls_that_name_a_range(world: World, monkeypatch: pytest.MonkeyPatch):
    before = tracking.forks()
    monkeypatch.setattr(tracking, "forks", lambda: before + 1)
    world.persist_changed(5 * PAGE, PAGE)
    assert world.pages_sent() == {5}
    world.store(7, 6)
    world.persist()
    world.check()


@pytest.mark.parametrize("mode", KERNEL)
def test_a_kernel_that_stops_telling(world: World, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(1, "PAGEMAP_SCAN: no")

    world.store(7, 6)
    monkeypatch.setattr(type(world.tracking._way), "look", refuse)
    world.persist()
    assert world.tracking.mode == tracking.without_kernel()
    world.check()
