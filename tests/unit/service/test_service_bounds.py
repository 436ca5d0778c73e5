"""The target's service against one message at a time: what lies outside the pool stays there."""

from __future__ import annotations

import struct
import threading

import pytest

from rpmem.memory.region import Region
from rpmem.wire.messages import MESSAGE_FETCH as FETCH
from rpmem.wire.messages import MESSAGE_UPDATE as UPDATE
from rpmem.wire.messages import REPLY_BAD_MESSAGE as BAD_MESSAGE
from rpmem.wire.messages import REPLY_BAD_RANGE as BAD_RANGE
from rpmem.wire.messages import REPLY_DONE as DONE
from rpmem.wire.messages import UPDATE_ANSWER as ANSWER
from rpmem.wire.messages import UPDATE_DEEP as DEEP
from rpmem.wire.messages import WRITTEN_SHIFT
from rpmem.wire.pmdk_messages import PMDK_DEEP_PERSIST as PMDK_DEEP
from rpmem.wire.pmdk_messages import PMDK_FLUSH_WRITE as PMDK_FLUSH
from rpmem.wire.pmdk_messages import PMDK_PERSIST_SEND as PMDK_SEND
from rpmemd.service import Service
from tests.support.compiled import compiled

POOL = 1 << 16
SERVED = 1 << 15
FLOOR = 4096
STAGED = 4096
BASE = 1 << 40

WRITTEN = 1 << WRITTEN_SHIFT


def native(sequence, ranges, data=b"", *, kind=UPDATE, flags=ANSWER):
    table = b"".join(struct.pack("<QQ", *each) for each in ranges)
    return struct.pack("<BBHI", kind, flags, len(ranges), sequence) + table + data


def pmdk(mode, offset, size, data=b"", *, lane=0):
    return struct.pack("<IIQQ", mode, lane, (BASE + offset) % (1 << 64), size) + data


class Bench:
    """A service of one lane, of the first half of a region whose every byte is 0xEE.

    `before` lanes more come before it, and belong to other threads.
    """

    def __init__(self, dialect, before=0, read_floor=0):
        self.region = Region.anonymous(POOL)
        with memoryview(self.region) as view:
            view[:] = b"\xee" * POOL
        self.staging = Region.anonymous(STAGED) if dialect == "native" else None
        self.lane = compiled("_fed_lane").FedLane()
        self.dropped = []
        self.service = Service(
            self.region,
            SERVED,
            FLOOR if dialect == "native" else 0,
            [*(compiled("_fed_lane").FedLane() for _ in range(before)), self.lane],
            [self] * (before + 1),
            spin_s=1.0,
            dialect=dialect,
            base=BASE,
            staging=self.staging,
            read_floor=read_floor,
            on_drop=lambda *why: self.dropped.append(why),
        )
        self.thread = threading.Thread(target=self.service.run, args=(before,), daemon=True)
        self.thread.start()

    def say(self, message):
        """Feed a message; return the answer to it, or None when the lane was given up without."""
        before = len(self.lane.answers)
        self.lane.feed(message)
        while len(self.lane.answers) == before and not self.dropped:
            self.thread.join(0.0005)
        answers = self.lane.answers[before:]
        return answers[0] if answers else None

    def tell(self, message):
        """Feed a message that asks for no answer, and wait until it has been dealt with."""
        before = self.lane.handled
        self.lane.feed(message)
        while self.lane.handled == before:
            self.thread.join(0.0005)

    def gives_up(self):
        """Whether the lane is given up, which comes after the answer; its thread ends then."""
        self.thread.join(10)
        return bool(self.dropped)

    def close(self):
        self.service.stop()
        self.thread.join()

    def memory(self):
        with memoryview(self.region) as view:
            return bytes(view)

    def staged(self):
        with memoryview(self.staging) as view:
            return bytes(view)


@pytest.fixture
def bench(request):
    made = Bench(request.param)
    yield made
    made.close()


def status_of(answer):
    return answer[1]


MOST = (1 << 64) - 1
#: Behind the end of what is served, by little and by much, and around the end of the numbers.
OUTSIDE = [
    (SERVED - 8, 16),
    (SERVED - 1, 2),
    (SERVED, 1),
    (SERVED + 4096, 8),
    (POOL - 8, 16),
    (POOL, 8),
    (MOST - 7, 8),
    (MOST, 1),
    (FLOOR, SERVED),
    (FLOOR, 1 << 62),
]
#: Before the address of the pool.
BEFORE = [(-8, 8), (-8, 16), (-BASE, 8)]
#: Those of which a message can hold the data.
LITTLE = [where for where in OUTSIDE if where[1] <= STAGED]


@pytest.mark.parametrize("bench", ["native"], indirect=True)
@pytest.mark.parametrize("where", [*OUTSIDE, (0, 8), (FLOOR - 8, 16), (FLOOR - 1, 1)], ids=str)
def test_ranges_outside_that_were_written(bench, where):
    offset, length = where
    assert status_of(bench.say(native(1, [(offset, length | WRITTEN)]))) == BAD_RANGE
    assert bench.gives_up()


@pytest.mark.parametrize("bench", ["native"], indirect=True)
@pytest.mark.parametrize("where", [*LITTLE, (0, 8), (FLOOR - 8, 16), (FLOOR - 1, 1)], ids=str)
def test_data_for_ranges_outside(bench, where):
    offset, length = where
    answer = bench.say(native(1, [(offset, length)], bytes(length)))
    assert status_of(answer) == BAD_RANGE
    assert bench.gives_up()
    assert bench.memory() == b"\xee" * POOL


@pytest.mark.parametrize("bench", ["native"], indirect=True)
@pytest.mark.parametrize("where", LITTLE, ids=str)
def test_fetches_outside(bench, where):
    answer = bench.say(native(1, [where], kind=FETCH))
    assert status_of(answer) == BAD_RANGE
    assert bench.gives_up()
    assert bench.staged() == bytes(STAGED)


@pytest.mark.parametrize(
    "where", [(2 * FLOOR - 1, 1), (2 * FLOOR - 8, 16), (0, STAGED), ((1 << 64) - 8, 16)]
)
def test_fetches_below_a_floor_for_reading(where):
    bench = Bench("native", read_floor=2 * FLOOR)
    try:
        assert status_of(bench.say(native(1, [where], kind=FETCH))) == BAD_RANGE
        assert bench.gives_up()
        assert bench.staged() == bytes(STAGED)
    finally:
        bench.close()


def test_fetches_from_a_floor_for_reading_on():
    bench = Bench("native", read_floor=2 * FLOOR)
    try:
        assert status_of(bench.say(native(1, [(2 * FLOOR, 8)], kind=FETCH))) == DONE
        # What may be written is another matter.
        assert status_of(bench.say(native(2, [(FLOOR, 8)], b"12345678"))) == DONE
    finally:
        bench.close()


@pytest.mark.parametrize("bench", ["native"], indirect=True)
def test_fetches_of_more_than_fits(bench):
    assert status_of(bench.say(native(1, [(0, STAGED + 1)], kind=FETCH))) == BAD_MESSAGE
    assert bench.staged() == bytes(STAGED)


@pytest.mark.parametrize("bench", ["native"], indirect=True)
def test_what_lies_inside_is_served(bench):
    assert status_of(bench.say(native(1, [(FLOOR, 8), (SERVED - 8, 8)], b"a" * 16))) == DONE
    assert status_of(bench.say(native(2, [(SERVED - 16, 16)], kind=FETCH))) == DONE
    memory = bench.memory()
    assert memory[FLOOR : FLOOR + 8] == memory[SERVED - 8 : SERVED] == b"a" * 8
    assert memory[SERVED:] == b"\xee" * (POOL - SERVED)
    assert bench.staged()[:16] == b"\xee" * 8 + b"a" * 8
    assert not bench.dropped


@pytest.mark.parametrize("bench", ["native"], indirect=True)
@pytest.mark.parametrize(
    "message",
    [
        native(0, [(FLOOR, 8)], bytes(8)),
        native(2, [(FLOOR, 8)], bytes(8)),
        native(1, [(FLOOR, 8)], bytes(9)),
        native(1, [(FLOOR, 8)], bytes(7)),
        native(1, [(FLOOR, 8)], bytes(8), kind=3),
        native(1, [(FLOOR, 8)], bytes(8), flags=4 | ANSWER),
        b"\x01",
    ],
)
def test_messages_that_are_none(bench, message):
    assert status_of(bench.say(message)) == BAD_MESSAGE
    assert bench.memory() == b"\xee" * POOL


@pytest.mark.parametrize("bench", ["pmdk"], indirect=True)
@pytest.mark.parametrize("mode", [PMDK_FLUSH, PMDK_DEEP])
@pytest.mark.parametrize("where", [*OUTSIDE, *BEFORE], ids=str)
def test_pmdk_requests_outside(bench, where, mode):
    assert bench.say(pmdk(mode, *where)) is None
    assert bench.gives_up()


@pytest.mark.parametrize("bench", ["pmdk"], indirect=True)
@pytest.mark.parametrize("where", [*LITTLE, *BEFORE], ids=str)
def test_pmdk_data_for_ranges_outside(bench, where):
    assert bench.say(pmdk(PMDK_SEND, *where, bytes(where[1]))) is None
    assert bench.gives_up()
    assert bench.memory() == b"\xee" * POOL


@pytest.mark.parametrize("bench", ["native"], indirect=True)
def test_the_answer_to_a_fetch_says_that_what_came_before_is_durable(bench):
    verbs = []
    compiled("_hooked_media").hook(
        bench.region, lambda verb, *_: verbs.append(verb) or 0, medium="pmem"
    )
    bench.tell(native(1, [(FLOOR, 8)], b"a" * 8, flags=0))
    assert status_of(bench.say(native(2, [(FLOOR, 8)], kind=FETCH))) == DONE
    assert verbs == ["flush", "drain"]


@pytest.mark.parametrize("flags", [(DEEP, ANSWER), (DEEP, 0, ANSWER)], ids=str)
@pytest.mark.parametrize("bench", ["native"], indirect=True)
def test_what_is_deep_stays_deep_until_it_is_answered(bench, flags):
    verbs = []
    compiled("_hooked_media").hook(
        bench.region, lambda verb, *_: verbs.append(verb) or 0, medium="pmem"
    )
    for sequence, each in enumerate(flags[:-1], 1):
        bench.tell(native(sequence, [(FLOOR, 8)], b"a" * 8, flags=each))
    last = native(len(flags), [(FLOOR, 8)], b"a" * 8, flags=flags[-1])
    assert status_of(bench.say(last)) == DONE
    assert verbs == ["deep"] * len(flags) + ["drain"]


def test_each_lane_has_a_staging_buffer_of_its_own():
    bench = Bench("native", before=3)
    try:
        assert status_of(bench.say(native(1, [(FLOOR, 64)], kind=FETCH))) == DONE
    finally:
        bench.close()
    assert bench.staged() == bytes(3 * STAGED // 4) + b"\xee" * 64 + bytes(STAGED // 4 - 64)


def test_pmdk_replies_say_their_lane():
    bench = Bench("pmdk", before=3)
    try:
        answer = bench.say(pmdk(PMDK_FLUSH, 0, 8, lane=3))
    finally:
        bench.close()
    assert struct.unpack("<4xI", answer) == (3,)


@pytest.mark.parametrize("extra", [1, 8, 64])
@pytest.mark.parametrize("mode", [PMDK_FLUSH, PMDK_SEND])
@pytest.mark.parametrize("bench", ["pmdk"], indirect=True)
def test_pmdk_requests_with_more_than_they_say(bench, mode, extra):
    data = b"a" * 8 if mode == PMDK_SEND else b""
    assert bench.say(pmdk(mode, 0, 8, data + bytes(extra))) is None
    assert bench.gives_up()
    assert bench.memory() == b"\xee" * POOL


@pytest.mark.parametrize("bench", ["pmdk"], indirect=True)
def test_pmdk_deep_requests_are_deep(bench):
    verbs = []
    compiled("_hooked_media").hook(
        bench.region, lambda verb, *_: verbs.append(verb) or 0, medium="pmem"
    )
    assert bench.say(pmdk(PMDK_DEEP, 0, 8)) is not None
    assert bench.say(pmdk(PMDK_FLUSH, 0, 8)) is not None
    assert verbs == ["deep", "drain", "flush", "drain"]


@pytest.mark.parametrize("bench", ["pmdk"], indirect=True)
def test_pmdk_requests_inside_are_served(bench):
    assert bench.say(pmdk(PMDK_SEND, SERVED - 8, 8, b"a" * 8)) is not None
    assert bench.say(pmdk(PMDK_FLUSH, 0, SERVED)) is not None
    assert bench.say(pmdk(PMDK_DEEP, SERVED - 1, 1)) is not None
    assert bench.memory()[SERVED - 8 : SERVED + 8] == b"a" * 8 + b"\xee" * 8
    assert not bench.dropped
    assert bench.say(pmdk(PMDK_FLUSH, 0, 8, lane=1)) is None
