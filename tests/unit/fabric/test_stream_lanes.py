"""A lane over a byte stream whose other side is a bare socket: every byte, right and wrong."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time

import pytest

from rpmem.fabric import providers
from rpmem.memory.region import Region
from tests.support.raw_session import raw_lane

MESSAGE, WRITE, READ, DATA, DONE = range(1, 6)
ASKS, WORDS = 1, 2
GARBLED, LOST, AGAIN = -4, -2, -1
_FRAME = struct.Struct("<IBBHQ")
SIZE = 1 << 16
SLOT = 1 << 14


#: The processor that these tests run on, as messages tell it.
HERE = 1 + min(os.sched_getaffinity(0))


def frame(kind, data=b"", *, length=None, flags=0, processor=None, offset=0):
    length = len(data) if length is None else length
    processor = (HERE if kind == MESSAGE else 0) if processor is None else processor
    return _FRAME.pack(length, kind, flags, processor, offset) + data


class Wired:
    """A lane, and the socket that its bytes come from and go to."""

    def __init__(self, *, exposed=True, slots=2, ends=socket.socketpair, beside=0):
        self.raw = raw_lane()
        self.module = providers.load("stream")
        pairs = [ends() for _ in range(1 + beside)]
        self.other, *self.others = [other for other, _ in pairs]
        self.other.settimeout(10)
        self._ours = [ours.detach() for _, ours in pairs]
        self.memory = Region.anonymous(SIZE)
        self.fabric = self.module.Fabric("socketpair", "", carrier=self)
        self.domain = self.module.Domain(self.fabric)
        self.registered = self.module.Memory(
            self.domain, self.memory.address, SIZE, remote=exposed, keep=self.memory
        )
        self.queue = self.module.Queue(self.domain)
        self.lane, *self.beside = lanes = [
            self.module.FabricLane(
                self.domain, self.queue, number, (4, SLOT), (slots, SLOT), self.registered
            )
            for number in range(1 + beside)
        ]
        for lane in lanes:
            lane.aim(0, 0, SIZE)
            lane.connect(b"")
        self.fabric.await_lanes(lanes, 10.0)
        for lane in lanes:
            self.raw.post_receives(lane)

    def take_descriptor(self):
        return self._ours.pop(0)

    def __enter__(self):
        self._anywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {HERE - 1})
        return self

    def __exit__(self, *_):
        os.sched_setaffinity(0, self._anywhere)
        held = (self.queue, self.registered, self.domain, self.fabric, self.memory)
        for each in (self.lane, *self.beside, *held):
            each.close()
        for connection in (self.other, *self.others):
            connection.close()

    def polled(self, count=1, patience_s=5.0):
        """Return so many completions, or what came in time."""
        found = []
        deadline = time.monotonic() + patience_s
        while len(found) < count and time.monotonic() < deadline:
            found += self.raw.poll(self.lane)
        return found

    def received(self, count):
        data = b""
        while len(data) < count:
            data += self.other.recv(count - len(data))
        return data

    @property
    def content(self):
        return bytes(memoryview(self.memory))


@pytest.fixture
def wired():
    with Wired() as made:
        yield made


# --- what is right ------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 64, 4096, 8191, 8192, 8193, SLOT])
def test_a_message_is_a_header_and_its_bytes(wired, length):
    data = random.Random(length).randbytes(length)
    assert wired.raw.send(wired.lane, data) == 0
    assert wired.received(16 + length) == frame(MESSAGE, data)
    wired.other.sendall(frame(MESSAGE, data))
    assert wired.polled() == [("receive", data)]


def test_a_message_tells_where_its_sender_runs(wired):
    for processor in (3, 0, 65535):
        wired.other.sendall(frame(MESSAGE, b"x", processor=processor))
        assert wired.polled() == [("receive", b"x")]
        assert wired.raw.neighbour(wired.lane) == processor


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_where_connections_of_this_machine_come_from_is_told(address):
    with Wired(ends=lambda: connected(address, address)) as wired:
        wired.other.sendall(frame(MESSAGE, b"x", processor=5))
        assert wired.polled() == [("receive", b"x")]
        assert wired.raw.neighbour(wired.lane) == 5


def test_a_processor_elsewhere_is_of_no_interest():
    with Wired(ends=lambda: connected("127.0.0.2", "127.0.0.1")) as wired:
        wired.other.sendall(frame(MESSAGE, b"x", processor=5))
        assert wired.polled() == [("receive", b"x")]
        assert wired.raw.neighbour(wired.lane) == 0


def test_a_connection_that_has_ended_already_is_a_lost_lane():
    def ended():
        caller, answerer = connected("127.0.0.1", "127.0.0.1")
        # So its end is a reset, after which a socket does not know whose it was.
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        return socket.socket(), answerer

    with Wired(ends=ended) as wired:
        assert wired.polled() == [("fault", b"")]
        assert wired.lane.fault[0] == LOST


def connected(source, address):
    """The ends of a TCP connection between two addresses."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener, contextlib.ExitStack() as kept:
        listener.bind((address, 0))
        listener.listen()
        caller = kept.enter_context(socket.socket(family))
        caller.bind((source, 0))
        caller.connect(listener.getsockname())
        kept.pop_all()
        return caller, listener.accept()[0]


def test_what_is_written_lands_in_the_memory(wired):
    assert wired.raw.write(wired.lane, b"abc", 77) == 0
    assert wired.received(19) == frame(WRITE, b"abc", offset=77, flags=ASKS)
    wired.other.sendall(frame(DONE))
    assert wired.polled() == [("write", b"")]
    wired.other.sendall(frame(WRITE, b"x" * 20_000, offset=100) + frame(MESSAGE, b"and"))
    assert wired.polled() == [("receive", b"and")]
    assert wired.content == bytes(100) + b"x" * 20_000 + bytes(SIZE - 20_100)


def test_whoever_asks_is_told_that_it_is_there(wired):
    wired.other.sendall(frame(WRITE, b"x", offset=9, flags=ASKS) + frame(WRITE, b"y", offset=10))
    wired.polled(patience_s=0.2)
    assert wired.received(16) == frame(DONE)
    assert wired.content[9:11] == b"xy"


def test_a_read_brings_what_is_there(wired):
    memoryview(wired.memory)[500:508] = b"contents"
    wired.other.sendall(frame(READ, length=8, offset=500))
    wired.polled(patience_s=0.2)
    assert wired.received(24) == frame(DATA, b"contents")
    assert wired.raw.read(wired.lane, 12, 5) == 0
    assert wired.received(16) == frame(READ, length=5, offset=12)
    wired.other.sendall(frame(DATA, b"there"))
    assert wired.polled() == [("read", b"")]
    assert wired.raw.scratch(wired.lane, 5) == b"there"


def test_frames_that_come_byte_by_byte_are_whole(wired):
    whole = frame(MESSAGE, b"one") + frame(WRITE, b"two", offset=3) + frame(MESSAGE, b"three")
    found = []
    for byte in whole:
        wired.other.sendall(bytes((byte,)))
        found += wired.raw.poll(wired.lane)
    assert found + wired.polled(2 - len(found)) == [("receive", b"one"), ("receive", b"three")]
    assert wired.content[:8] == b"\0\0\0two\0\0"


def test_frames_that_come_together_are_taken_apart(wired):
    words = [bytes((k,)) * (k * 37 % 900) for k in range(60)]
    wired.other.sendall(b"".join(frame(MESSAGE, word) for word in words))
    assert wired.polled(60) == [("receive", word) for word in words]


def test_messages_stay_where_they_arrived_until_the_next_poll():
    """More has come than is received at once, which ends in the middle of a header."""
    inbox = 69632
    last = inbox - 4 * (16 + SLOT) - 16 - 8
    data = [bytes((k + 1,)) * (last if k == 4 else SLOT) for k in range(7)]
    with Wired(slots=8) as wired:
        wired.other.sendall(b"".join(frame(MESSAGE, each) for each in data))
        assert wired.polled(7) == [("receive", each) for each in data]


def test_a_message_waits_until_there_is_a_buffer():
    with Wired(slots=1) as wired:
        # Polling posts the buffer again, so everything comes, one after the other.
        wired.other.sendall(b"".join(frame(MESSAGE, bytes((k,)) * SLOT) for k in range(5)))
        assert wired.polled(5) == [("receive", bytes((k,)) * SLOT) for k in range(5)]


def test_what_the_socket_does_not_take_is_sent_later(wired):
    """The other side does not read for a while: posts are refused whole, and none is torn."""
    sent = 0
    while sent < 500:
        data = sent.to_bytes(4, "little") * (SLOT // 4)
        vector_taken = wired.raw.write(wired.lane, data[:4096], 0)
        if vector_taken == AGAIN:
            break
        assert vector_taken == 0
        sent += 1
        if sent > 400:
            pytest.fail("the socket takes everything")
    assert 0 < sent < 400
    # The scratch memory that all of them come from has the last one's bytes.
    got = bytearray()
    wired.other.setblocking(False)
    deadline = time.monotonic() + 10
    while len(got) < sent * (16 + 4096) and time.monotonic() < deadline:
        wired.raw.poll(wired.lane)
        try:
            got += wired.other.recv(1 << 16)
        except BlockingIOError:
            continue
    assert len(got) == sent * (16 + 4096)
    for k in range(sent):
        assert got[k * 4112 : k * 4112 + 16] == frame(WRITE, length=4096, flags=ASKS), k


def narrow():
    """The ends of a connection that takes a few thousand bytes at a time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.connect(server.getsockname())
        ours.setblocking(False)
        return server.accept()[0], ours


def test_what_is_sent_in_pieces_is_whole():
    with Wired(ends=narrow) as wired:
        for number in range(20):
            data = random.Random(number).randbytes(SLOT - number)
            assert wired.raw.send(wired.lane, data) == 0
            got, wanted = b"", frame(MESSAGE, data)
            while len(got) < len(wanted):
                wired.raw.poll(wired.lane)
                got += wired.other.recv(len(wanted) - len(got))
            assert got == wanted


def test_the_other_sides_last_words_are_heard(wired):
    """It says why, hangs up, and is then sent something."""
    wired.other.sendall(frame(MESSAGE, b"why"))
    wired.other.close()
    for _ in range(2):
        assert wired.raw.write(wired.lane, b"x", 0) == AGAIN
    assert wired.raw.wait(wired.lane, 10)
    assert wired.polled(2) == [("receive", b"why"), ("fault", b"")]
    assert wired.lane.fault == (LOST, 0)
    assert wired.raw.write(wired.lane, b"x", 0) == LOST


# --- what is wrong ------------------------------------------------------------------

WRONG = {
    "no kind": frame(0),
    "another kind": frame(6),
    "a kind out of range": frame(255),
    "a flag of none": frame(WRITE, b"x", flags=4),
    "words of a message": frame(MESSAGE, b"x", flags=WORDS),
    "a flag of a message": frame(MESSAGE, b"x", flags=ASKS),
    "a processor of a write": frame(WRITE, b"x", processor=1),
    "a processor of a read": frame(READ, length=1, processor=1 << 8),
    "a processor of a confirmation": frame(DONE, processor=1),
    "a message with an offset": frame(MESSAGE, b"x", offset=1),
    "a message that is too long": frame(MESSAGE, length=SLOT + 1),
    "a message that is much too long": frame(MESSAGE, length=0xFFFFFFFF),
    "a write behind the end": frame(WRITE, b"x", offset=SIZE),
    "a write across the end": frame(WRITE, b"xy", offset=SIZE - 1),
    "a write that wraps": frame(WRITE, length=2, offset=2**64 - 1),
    "a write that is too long": frame(WRITE, length=(1 << 20) + 1),
    "a read behind the end": frame(READ, length=1, offset=SIZE),
    "a read that wraps": frame(READ, length=2, offset=2**64 - 1),
    "data that nobody wants": frame(DATA, b"x"),
    "a confirmation of nothing": frame(DONE),
    "a confirmation with data": frame(DONE, b"x"),
}


@pytest.mark.parametrize("bad", WRONG.values(), ids=WRONG)
def test_a_frame_that_breaks_a_rule_ends_the_lane(wired, bad):
    wired.other.sendall(frame(MESSAGE, b"before") + bad + frame(MESSAGE, b"behind"))
    assert wired.polled(2) == [("receive", b"before"), ("fault", b"")]
    assert wired.lane.fault[0] == GARBLED
    assert wired.content == bytes(SIZE)
    assert wired.raw.poll(wired.lane) == []
    assert wired.raw.send(wired.lane, b"x") == GARBLED


@pytest.mark.parametrize("data", [b"x", b"xyz"])
def test_data_of_another_length_than_was_wanted_end_the_lane(wired, data):
    assert wired.raw.read(wired.lane, 0, 2) == 0
    wired.other.sendall(frame(DATA, data))
    assert wired.polled() == [("fault", b"")]
    assert wired.lane.fault[0] == GARBLED


@pytest.mark.parametrize("kind", [WRITE, READ])
def test_an_initiator_has_nothing_to_be_reached(kind):
    with Wired(exposed=False) as wired:
        wired.other.sendall(frame(kind, length=1, offset=0) + b"x")
        assert wired.polled() == [("fault", b"")]
        assert wired.lane.fault[0] == GARBLED


@pytest.mark.parametrize("begun", [b"", frame(MESSAGE, b"abc")[:9], frame(MESSAGE, b"abc")[:-1]])
def test_an_end_at_any_place_is_noticed(wired, begun):
    wired.other.sendall(begun)
    assert wired.polled(patience_s=0.05) == []
    wired.other.close()
    assert wired.polled() == [("fault", b"")]
    assert wired.lane.fault[0] == LOST


def test_random_bytes_store_nothing_where_they_may_not():
    """Frames with random mistakes: nothing outside the memory is touched, and nobody hangs."""
    chance = random.Random(5)
    ended = 0
    for _ in range(400):
        with Wired() as wired:
            for _ in range(50):
                kind = chance.choice((MESSAGE, WRITE, READ, DATA, DONE, chance.randrange(256)))
                data = chance.randbytes(chance.choice((0, 1, 8, 300)))
                bad = bytearray(
                    frame(kind, data, offset=chance.choice((0, 0, SIZE - 300, SIZE, 2**63)))
                )
                if chance.random() < 0.3:
                    bad[chance.randrange(len(bad))] = chance.randrange(256)
                try:
                    wired.other.send(bad, socket.MSG_DONTWAIT)
                except (BlockingIOError, BrokenPipeError):
                    break
                wired.raw.poll(wired.lane)
                if wired.lane.fault[0]:
                    ended += 1
                    break
    assert ended > 300
