"""Durability steps on a lane that notes what is posted: what, in which order, waited for or not."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rpmem.errors import (
    DeadlineExceeded,
    FlushFailed,
    MalformedMessage,
    RangeError,
    RpmemError,
)
from rpmem.wire.lane import POST_COMMIT, POST_DELIVERED, POST_SIGNAL
from rpmem.wire.messages import UPDATE_DEEP
from rpmem.wire.pmdk_messages import PMDK_DEEP_PERSIST, PMDK_FLUSH_WRITE, PMDK_PERSIST_SEND
from tests.support.posts import (
    EVERY,
    LONG,
    NATIVE,
    ONE_SIDED,
    PMDK,
    SIZE,
    WINDOW,
    Bench,
)

#: Flushes of one lane that wait for a drain (``rpmem/steps/step.pxd``).
MOST_DEFERRED = 64


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("step", EVERY)
def test_the_bytes_arrive(step, relaxed):
    bench = Bench(step)
    for where in [(0, 8), (17, 3), (4096, 4096), (100, 200_001), (SIZE - 8, 8), (0, SIZE)]:
        bench.core.persist(where, relaxed=relaxed)
        assert bench.same(*where)
    ranges = [(offset, 64) for offset in range(0, 65536, 640)]
    with memoryview(bench.region) as view:
        view[:65536] = os.urandom(65536)
    bench.core.persist_many(ranges[::-1], relaxed=relaxed)
    assert all(bench.same(*where) for where in ranges)


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("step", EVERY)
def test_pieces_of_long_ranges_are_the_right_ones(step, relaxed):
    bench = Bench(step, operation_limit=4096)
    bench.core.persist((640, 100_000), relaxed=relaxed)
    assert bench.same(640, 100_000)
    back = bytearray(50_001)
    bench.core.read(0, back, 643)
    assert bytes(back) == bench.lane.read_pool(643, len(back))


@pytest.mark.parametrize("step", ["send-after-write", "pmdk-send-after-write"])
def test_ranges_of_every_length_around_what_a_message_holds(step):
    bench = Bench(step, message_size=256)
    for offset in (4096, 4097, 4103, 4096 + 24, 4096 + 40):
        for length in range(190, 300):
            with memoryview(bench.region) as view:
                view[offset : offset + length] = os.urandom(length)
            bench.core.persist((offset, length))
            assert bench.same(offset, length)
            sent = [post for post in bench.lane.posts() if post[0] == "send"]
            # Pieces end where words do.
            assert sent[0][1] == offset
            assert all(post[1] % 8 == 0 for post in sent[1:])
            assert sum(post[2] for post in sent) == length
            assert all(24 + post[2] <= 256 for post in sent)


@pytest.mark.parametrize("step", EVERY)
def test_reads_of_every_length_around_what_one_post_takes(step):
    bench = Bench(step, operation_limit=64)
    bench.core.persist((0, 4096))
    for length in (1, 2, 63, 64, 65, 127, 128, 129, 1025):
        back = bytearray(length)
        bench.core.read(0, back, 640)
        assert bytes(back) == bench.lane.read_pool(640, length)


@pytest.mark.parametrize("step", ["send-after-write", "pmdk-send-after-write"])
def test_an_answer_to_nothing_is_a_breach(step):
    bench = Bench(step)
    bench.core.persist((4096, 8))
    bench.lane.volunteer()
    with pytest.raises(MalformedMessage):
        bench.core.persist((4096, 8))


@pytest.mark.parametrize("longer", [-1, 1, 8])
@pytest.mark.parametrize("step", ["send-after-write", "pmdk-send-after-write"])
def test_an_answer_of_another_length_is_a_breach(step, longer):
    bench = Bench(step)
    bench.core.persist((4096, 8))
    bench.lane.lengthen(longer)
    with pytest.raises(MalformedMessage):
        bench.core.persist((4096, 8))


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("step", EVERY)
def test_empty_ranges_are_never_posted(step, relaxed):
    ranges = [(8192, 0), (4096, 64), (0, 0), (65536, 5000), (SIZE, 0)]
    for each in (np.array(ranges, np.uint64), ranges):
        bench = Bench(step)
        bench.core.persist_many(each, relaxed=relaxed)
        assert all(bench.same(*where) for where in ranges)
        posts = bench.lane.posts()
        assert posts
        assert all(length for _, _, length, _, _ in posts)
        bench.core.persist_many(each[:1], relaxed=relaxed)
        assert bench.lane.posts() == []


def test_as_many_flushes_wait_for_the_drain_as_there_is_room_for():
    bench = Bench("send-after-write")
    ranges = [(number * 640, 8) for number in range(130)]
    for number, where in enumerate(ranges):
        bench.core.flush(where)
        # What waits goes out before what no longer has a place beside it.
        assert bench.lane.messages == number // MOST_DEFERRED
    bench.core.drain()
    assert bench.lane.messages == 3
    assert [post[1:3] for post in bench.lane.posts()] == ranges
    assert all(bench.same(*where) for where in ranges)


@pytest.mark.parametrize("what", ["posts", "answers"])
@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("step", EVERY)
def test_no_call_returns_before_what_ends_it(step, relaxed, what):
    """Of each call something is waited for; without it the call fails, and does not return."""
    bench = Bench(step)
    bench.core.persist((0, 64), relaxed=relaxed)
    bench.lane.posts()
    where = LONG
    bench.core.persist(where, relaxed=relaxed)
    posts = bench.lane.posts()
    asked = {
        "posts": any(flags & POST_SIGNAL for kind, _, _, flags, _ in posts if kind != "send"),
        "answers": any(kind == "send" for kind, *_ in posts),
    }
    assert any(asked.values()), "nothing tells that it is durable"
    bench.lane.withhold(**{what: True})
    if asked[what]:
        with pytest.raises(DeadlineExceeded):
            bench.core.persist(where, relaxed=relaxed)
    else:
        bench.core.persist(where, relaxed=relaxed)


@pytest.mark.parametrize("step", [step for step in EVERY if "pmdk" not in step])
def test_a_drain_waits_for_the_flushes_before_it(step):
    for relaxed in (False, True):
        bench = Bench(step)
        for at in range(3):
            bench.core.flush((at * 8192, 64 + at * 2000), relaxed=relaxed)
        bench.lane.withhold(posts=True, answers=True)
        with pytest.raises(RpmemError):
            bench.core.drain()
        bench = Bench(step)
        for at in range(3):
            bench.core.flush((at * 8192, 64 + at * 2000), relaxed=relaxed)
        bench.core.drain()
        assert all(bench.same(at * 8192, 64 + at * 2000) for at in range(3))


@pytest.mark.parametrize("step", EVERY)
def test_deep_goes_in_messages_that_say_so(step):
    bench = Bench(step)
    bench.core.deep_persist((4096, 300_000))
    assert bench.same(4096, 300_000)
    sent = [post for post in bench.lane.posts() if post[0] == "send"]
    deep = [
        post
        for post in sent
        if post[4] == PMDK_DEEP_PERSIST or (step not in PMDK and post[4] & UPDATE_DEEP)
    ]
    assert sent
    assert deep == sent
    assert sum(post[2] for post in deep) == 300_000


@pytest.mark.parametrize("step", NATIVE)
def test_a_refusal_is_an_error(step):
    bench = Bench(step)
    bench.lane.refuse(1)
    with pytest.raises(FlushFailed) as caught:
        bench.core.persist((4096, 640))
    assert caught.value.errno == 5  # what the target's medium said


def test_a_replica_that_failed_on_one_lane_is_lost_on_every_lane():
    bench = Bench("send-after-write", lanes=2)
    bench.core.persist((0, 64), lane=1)
    bench.lane.withhold(answers=True)
    with pytest.raises(DeadlineExceeded):
        bench.core.persist((0, 64), lane=0)
    assert bench.group.failed
    bench.lanes[1].posts()
    with pytest.raises(RpmemError):
        bench.core.persist((0, 64), lane=1)
    assert bench.lanes[1].posts() == []


def test_a_replica_that_is_lost_does_not_count_as_done():
    bench = Bench("send-after-write")
    bench.group.abort()
    for call in (bench.core.persist, bench.core.flush, bench.core.deep_persist):
        with pytest.raises(RpmemError):
            call((0, 64))
    with pytest.raises(RpmemError):
        bench.core.drain()
    assert bench.lane.posts() == []


def test_ranges_end_where_the_pool_does():
    bench = Bench("send-after-write", floor=4096)
    for where in [(SIZE - 8, 8), (4096, SIZE - 4096), (4096, 1), (SIZE - 1, 1)]:
        bench.core.persist(where)
    most = (1 << 64) - 1
    bench.lane.posts()
    for where in [
        *((SIZE - 8 + over, 8) for over in (1, 2, 7, 8, 9)),
        *((4096, SIZE - 4096 + over) for over in (1, 8)),
        *((4096 - under, 8) for under in (1, 8, 4096)),
        (SIZE, 1),
        (most, 1),
        (most, most),
        (8192, most),
    ]:
        with pytest.raises(RangeError):
            bench.core.persist(where)
        with pytest.raises(RangeError):
            bench.core.persist_many([(8192, 8), where])
    assert bench.lane.posts() == []


def test_read_after_write_reads_behind_what_it_wrote():
    bench = Bench("read-after-write")
    bench.core.persist(LONG, relaxed=True)
    posts = bench.lane.posts()
    assert [post[0] for post in posts] == ["write", "read"]
    assert posts[1][1] == 8192
    assert posts[1][3] & POST_SIGNAL


def test_delivered_asks_for_the_delivery_of_the_last_write():
    bench = Bench("delivered")
    bench.core.persist_many([(0, 4096), (8192, 65536)], relaxed=True)
    posts = bench.lane.posts()
    assert [post[0] for post in posts] == ["write", "write"]
    assert posts[-1][3] & POST_DELIVERED
    assert posts[-1][3] & POST_SIGNAL


def test_commit_asks_for_the_persistence_domain_at_every_write():
    bench = Bench("commit")
    bench.core.persist_many([(0, 4096), (8192, 65536)], relaxed=True)
    posts = bench.lane.posts()
    assert [post[0] for post in posts] == ["write", "write"]
    assert all(post[3] & POST_COMMIT and post[3] & POST_SIGNAL for post in posts)


def test_flush_flushes_all_that_it_wrote():
    bench = Bench("flush")
    near = [(5000, 64), (4900, 64)], [(4096, 512), (4200, 8)]
    for ranges in ([(0, 4096), (8192, 65536)], [(0, 64), (900_000, 64), (400_000, 64)], *near):
        bench.core.persist_many(ranges, relaxed=True)
        posts = bench.lane.posts()
        flushed = [post for post in posts if post[0] == "flush"]
        for offset, length in ranges:
            assert any(at <= offset and offset + length <= at + n for _, at, n, *_ in flushed)
        assert posts[-1][0] == "flush"
        assert posts[-1][3] & POST_SIGNAL
    bench.core.persist((4096, 8))
    assert bench.kinds() == ["word", "flush"]
    for where in ((4100, 8), (4097, 8), (4096, 16)):
        bench.core.persist(where)
        assert bench.kinds() == ["send"]


@pytest.mark.parametrize("step", ONE_SIDED)
def test_strict_data_never_go_one_sided(step):
    bench = Bench(step)
    bench.core.persist((4096, 4096))
    assert set(bench.kinds()) == {"send"}


@pytest.mark.parametrize("step", NATIVE)
def test_no_more_messages_are_on_their_way_than_were_granted(step):
    bench = Bench(step)
    bench.lane.withhold(answers=True)
    with pytest.raises(DeadlineExceeded):
        bench.core.persist((0, SIZE))
    assert bench.kinds() == ["send"] * WINDOW


@pytest.mark.parametrize("unanswered", range(WINDOW + 1))
def test_a_fetch_is_one_of_the_messages_that_were_granted(unanswered):
    bench = Bench("send-after-write", staging=4096)
    bench.lane.withhold(answers=True)
    for number in range(unanswered):
        bench.core.flush((number * 65536, 65000))
    assert bench.lane.messages == unanswered
    with pytest.raises(DeadlineExceeded):
        bench.core.read(0, bytearray(64), 900_000)
    assert bench.lane.messages == min(unanswered + 1, WINDOW)


def test_pmdk_has_one_request_on_its_way():
    bench = Bench("pmdk-send-after-write")
    bench.lane.withhold(answers=True)
    with pytest.raises(DeadlineExceeded):
        bench.core.persist_many([(0, 64), (8192, 64), (65536, 64)])
    assert bench.kinds() == ["send"]


def test_pmdk_names_what_it_wrote():
    bench = Bench("pmdk-send-after-write")
    bench.core.persist(LONG, relaxed=True)
    posts = bench.lane.posts()
    assert [post[0] for post in posts] == ["write", "send"]
    assert posts[1][1:3] == (8192, 65536)
    assert posts[1][4] == PMDK_FLUSH_WRITE
    bench.core.persist((4096, 64))
    assert [post[4] for post in bench.lane.posts() if post[0] == "send"] == [PMDK_PERSIST_SEND]


def test_pmdk_appliance_reads_what_it_wrote():
    bench = Bench("pmdk-read-after-write")
    bench.core.persist(LONG, relaxed=True)
    posts = bench.lane.posts()
    assert [post[0] for post in posts] == ["write", "read"]
    assert posts[1][3] & POST_SIGNAL


def test_a_drain_of_pmdks_appliance_reads_what_was_flushed():
    bench = Bench("pmdk-read-after-write", lanes=2)
    bench.core.flush(LONG, relaxed=True, lane=1)
    assert [post[0] for post in bench.lanes[1].posts()] == ["write"]
    bench.core.drain()
    assert [post[:2] for post in bench.lanes[1].posts()] == [("read", LONG[0])]
    bench.core.drain()
    assert bench.lanes[1].posts() == []


@pytest.mark.parametrize("step", ["send-after-write", "pmdk-send-after-write"])
def test_words_begin_where_words_do(step):
    bench = Bench(step, floor=4096)
    bench.core.put(8192, b"12345678")
    assert bench.lane.read_pool(8192, 8) == b"12345678"
    bench.lane.posts()
    for offset in (8193, 8194, 8196, 8199, 4088, 4092, SIZE - 4, SIZE):
        with pytest.raises(RangeError):
            bench.core.put(offset, b"12345678")
    for word in (b"", b"1234567", b"123456789"):
        with pytest.raises(RangeError):
            bench.core.put(8192, word)
    assert bench.lane.posts() == []
