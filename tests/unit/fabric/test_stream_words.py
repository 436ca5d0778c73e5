"""WRITEs over a byte stream: words that are stored whole, and posts that leave together."""

from __future__ import annotations

import random

import pytest

from tests.unit.fabric.test_stream_lanes import (
    AGAIN,
    ASKS,
    MESSAGE,
    SIZE,
    WORDS,
    WRITE,
    Wired,
    frame,
)


@pytest.fixture
def wired():
    with Wired() as made:
        yield made


@pytest.mark.parametrize("offset", [0, 1, 4, 8, 13, 4095])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 100, 3000])
def test_a_word_is_stored_once_all_of_it_is_there(wired, offset, length):
    chance = random.Random(offset * 10_000 + length)
    data = bytes(chance.randrange(1, 256) for _ in range(length))
    wanted = bytes(offset) + data + bytes(SIZE - offset - length)
    wired.other.sendall(frame(WRITE, flags=WORDS, offset=offset, length=length))
    left = data
    while left:
        piece = left[: chance.randrange(1, 24)]
        left = left[len(piece) :]
        wired.other.sendall(piece)
        assert wired.polled(1, patience_s=0.002) == []
        content = wired.content
        for word in range(0, offset + length + 8, 8):
            assert content[word : word + 8] in (bytes(8), wanted[word : word + 8]), word
    wired.other.sendall(frame(MESSAGE, b"behind"))
    assert wired.polled() == [("receive", b"behind")]
    assert wired.content == wanted


def test_many_words_at_once(wired):
    data = random.Random(1).randbytes(50_001)
    wired.other.sendall(frame(WRITE, data, flags=WORDS, offset=3) + frame(MESSAGE, b"behind"))
    assert wired.polled() == [("receive", b"behind")]
    assert wired.content == bytes(3) + data + bytes(SIZE - 3 - len(data))


def test_it_is_asked_for_with_a_flag(wired):
    assert wired.raw.write(wired.lane, b"abc", 5, words=True) == 0
    assert wired.received(19) == frame(WRITE, b"abc", offset=5, flags=ASKS | WORDS)


def test_a_write_leaves_with_the_message_behind_it(wired):
    assert wired.raw.write(wired.lane, b"abc", 5, more=True) == 0
    wired.other.setblocking(False)
    with pytest.raises(BlockingIOError):
        wired.other.recv(1)
    assert wired.raw.send(wired.lane, b"and this") == 0
    whole = frame(WRITE, b"abc", offset=5) + frame(MESSAGE, b"and this")
    assert wired.other.recv(1000) == whole


def test_a_write_that_nothing_follows_leaves_with_the_next_poll(wired):
    assert wired.raw.write(wired.lane, b"abc", 5, more=True) == 0
    assert wired.polled(1, patience_s=0.01) == []
    assert wired.received(19) == frame(WRITE, b"abc", offset=5)


def test_nobody_sleeps_on_a_write_that_has_not_left(wired):
    assert wired.raw.write(wired.lane, b"abc", 5, more=True) == 0
    assert wired.raw.wait(wired.lane, 5000)
    assert wired.polled(1, patience_s=0.01) == []
    assert wired.received(19) == frame(WRITE, b"abc", offset=5)
    assert not wired.raw.wait(wired.lane, 5)


@pytest.mark.parametrize("length", [1000, 4096])
def test_what_the_socket_does_not_take_of_both_comes_later(wired, length):
    """Whole frames in their order, wherever the socket was full."""
    data = random.Random(length).randbytes(length)
    message = random.Random(2).randbytes(700)
    chance = random.Random(3)
    again = turn = 0
    expected = got = b""
    wired.other.setblocking(False)
    while len(expected) < 1_000_000:
        turn += 1
        rc = wired.raw.write(wired.lane, data, turn, more=True)
        if rc == 0:
            expected += frame(WRITE, data, offset=turn)
            rc = wired.raw.send(wired.lane, message, 0)
            if rc == 0:
                expected += frame(MESSAGE, message)
        if rc == AGAIN:
            again += 1
            got += drained(wired.other, chance.randrange(1, 60_000))
        wired.polled(1, patience_s=0)
    while more := drained(wired.other, 1 << 20):
        got += more
        wired.polled(1, patience_s=0.001)
    assert got == expected
    assert again  # or the socket was never full


def drained(connection, most):
    """Return what a socket has, so many bytes at most."""
    try:
        return connection.recv(most)
    except BlockingIOError:
        return b""
