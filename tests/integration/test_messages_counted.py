"""How many messages a call takes: those are the system calls that its time is made of."""

from __future__ import annotations

import random

import pytest

from tests.support.pair import SIZE, pair

KIB = 1 << 10
MESSAGE = 128 * KIB


@pytest.fixture
def counted():
    """Return a function that counts the messages of a call, and the core to call."""
    with pair(message_size=MESSAGE) as both:
        core = both.connect()
        core.persist((0, 8))  # when it is answered, the service is there

        def count(call):
            before = both.server._service.messages
            call(core)
            return both.server._service.messages - before

        yield count, both


def flushes(count, length):
    def call(core):
        for number in range(count):
            core.flush((number * 2 * length, length))
        core.drain()

    return call


@pytest.mark.parametrize(
    ("count", "length", "messages"),
    [(1, 64, 1), (16, 64, 1), (64, 64, 1), (1, 4 * KIB, 1), (16, 4 * KIB, 1), (7, 16 * KIB, 1)],
)
def test_what_was_flushed_goes_in_one_message(counted, count, length, messages):
    counts, both = counted
    with memoryview(both.here) as here, memoryview(both.there) as there:
        here[:] = random.Random(count).randbytes(SIZE)
        assert counts(flushes(count, length)) == messages
        for number in range(count):
            at = number * 2 * length
            assert there[at : at + length] == here[at : at + length]
        assert there[length : 2 * length] == bytes(length)


def test_more_than_a_message_holds_takes_as_many_as_it_must(counted):
    count, _ = counted
    assert count(flushes(16, 16 * KIB)) == 3


def test_ranges_of_a_call_share_messages(counted):
    count, _ = counted
    ranges = [(number * 8 * KIB, 3 * KIB) for number in range(100)]
    assert count(lambda core: core.persist_many(ranges)) == 3
    # Who has one message for each finds out here what the others cost.
    assert count(lambda core: [core.persist(part) for part in ranges]) == 100
