"""Hostile initiators in band: the daemon lives, writes nothing outside, and says why it refused."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import time

import numpy as np
import pytest

from rpmem.control.messages import MAX_MESSAGE_SIZE
from rpmem.control.proof import pack_proof
from rpmem.errors import ConnectFailed, DeadlineExceeded, FabricError, RpmemError
from tests.support.fabrics import SOCKETS, needs_libfabric
from tests.support.media import image_of, wait_unlocked
from tests.support.processes import stop
from tests.support.raw_session import (
    ANSWER,
    BAD_MESSAGE,
    BAD_RANGE,
    DEEP,
    DONE,
    REPLY,
    UPDATE,
    WRITTEN,
    RawSession,
    resident,
    update,
)

pytestmark = pytest.mark.usefixtures("each_fabric")

PAGE = 4096
SIZE = 2 << 20


@pytest.fixture
def session(tmp_path):
    with RawSession(tmp_path, size=SIZE) as session:
        yield session


def medium(tmp_path):
    wait_unlocked(tmp_path / "a.set")
    return image_of(tmp_path / "a.set")


# --- messages ----------------------------------------------------------------------------------


def test_honest_messages_are_served(session, tmp_path):
    """What the others here differ from."""
    lane = session.lane()
    reply = session.exchange(lane, update(1, [(PAGE, 8), (PAGE + 100, 3)], b"onetwo-2abc"))
    assert (reply.kind, reply.status, reply.sequence) == (REPLY, DONE, 1)
    session.send(lane, update(2, [(PAGE + 200, 4)], b"four", flags=0))
    reply = session.exchange(lane, update(3, [(PAGE, 8 | WRITTEN)], flags=ANSWER | DEEP))
    assert (reply.status, reply.sequence) == (DONE, 3)
    assert session.exchange(lane, update(4, [])).status == DONE
    assert session.exchange(lane, update(5, [(SIZE - 4, 4)], b"last")).status == DONE
    assert session.exchange(lane, update(6, [(SIZE, 0), (PAGE, 0)])).status == DONE
    assert session.read(lane, PAGE, 8) == b"onetwo-2"
    assert session.failure(0.1) is None
    session.channel.close()
    image = medium(tmp_path)
    assert image[PAGE : PAGE + 8] == b"onetwo-2"
    assert image[PAGE + 100 : PAGE + 103] == b"abc"
    assert image[PAGE + 200 : PAGE + 204] == b"four"
    assert image[-4:] == b"last"


TOP = 1 << 64
BAD_RANGES = {
    "behind-the-end": (SIZE, 8),
    "over-the-end": (SIZE - 7, 8),
    "far-away": (1 << 40, 8),
    "wrapping": (TOP - 4, 8),
    "wrapping-exactly": (TOP - 8, 8),
    "in-the-header": (0, 8),
    "at-the-end-of-the-header": (PAGE - 8, 8),
    "into-the-pool-from-the-header": (PAGE - 4, 8),
}
BAD_LENGTHS = {
    "written-longer-than-the-pool": (PAGE, SIZE),
    "written-longest": (PAGE, WRITTEN - 1),
    "written-wrapping": (WRITTEN, WRITTEN - 8),
}
MALFORMED = {
    "empty": b"",
    "one-byte": b"\x01",
    "short-header": update(1, [])[:7],
    "no-such-kind": update(1, [(PAGE, 4)], b"data", kind=2),
    "a-reply": update(1, [(PAGE, 4)], b"data", kind=REPLY),
    "kind-0": update(1, [(PAGE, 4)], b"data", kind=0),
    "unknown-flag": update(1, [(PAGE, 4)], b"data", flags=4),
    "all-flags": update(1, [(PAGE, 4)], b"data", flags=255),
    "sequence-0": update(0, [(PAGE, 4)], b"data"),
    "sequence-skipped": update(2, [(PAGE, 4)], b"data"),
    "sequence-backwards": update(0xFFFFFFFF, [(PAGE, 4)], b"data"),
    "more-descriptors-than-bytes": update(1, [(PAGE, 4)], b"data", count=2),
    "most-descriptors": update(1, [(PAGE, 4)], b"data", count=0xFFFF),
    "no-descriptors-but-data": update(1, [], b"data"),
    "fewer-descriptors-than-there-are": update(1, [(PAGE, 4), (PAGE, 4)], b"datadata", count=1),
    "trailing-byte": update(1, [(PAGE, 4)], b"data!"),
    "missing-byte": update(1, [(PAGE, 4)], b"dat"),
    "no-data": update(1, [(PAGE, 4)]),
    "length-beyond-the-message": update(1, [(PAGE, 1 << 20)], b"data"),
    "longest-length": update(1, [(PAGE, WRITTEN - 1)], b"data"),
    "lengths-that-add-up-to-nothing": update(1, [(PAGE, WRITTEN - 4), (PAGE, 8)], b"data"),
    "half-a-descriptor": update(1, [(PAGE, 4)])[:-5],
}


def check_refused(session, lane, reply, status, words, tmp_path):
    assert reply is not None, "the lane ended without a word"
    assert (reply.kind, reply.status) == (REPLY, status)
    failure = session.failure()
    assert failure is not None
    assert words in str(failure)
    assert session.alive
    # The lane is not served any more.
    session.send(lane, update(1, [(PAGE, 4)], b"late"))
    session.send(lane, update(2, [(PAGE, 4)], b"late"))
    assert session.reply(lane, 0.3) is None
    session.close()
    assert not any(medium(tmp_path)[PAGE:])


@pytest.mark.parametrize("name", [*BAD_RANGES, *BAD_LENGTHS])
def test_ranges_outside(session, tmp_path, name):
    lane = session.lane()
    if name in BAD_RANGES:
        offset, length = BAD_RANGES[name]
        message = update(1, [(PAGE, 2), (offset, length)], b"ok" + b"x" * length)
    else:
        offset, length = BAD_LENGTHS[name]
        message = update(1, [(PAGE, 2), (offset, length | WRITTEN)], b"ok")
    header = image_of(tmp_path / "a.set")[:PAGE]
    reply = session.exchange(lane, message)
    assert reply.number == 1, "which range"
    check_refused(session, lane, reply, BAD_RANGE, "outside the pool", tmp_path)
    assert medium(tmp_path)[:PAGE] == header


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_messages(session, tmp_path, name):
    lane = session.lane()
    session.send(lane, MALFORMED[name])
    check_refused(session, lane, session.reply(lane), BAD_MESSAGE, "protocol", tmp_path)


def test_a_message_larger_than_was_agreed_ends_the_lane(session, tmp_path):
    lane = session.lane()
    large = session.ready.message_size + 1
    data = b"x" * large
    session.send(lane, update(1, [(PAGE, large)], data))
    reply = session.reply(lane, 5.0)
    assert reply is None or reply.status == BAD_MESSAGE
    assert session.failure() is not None
    assert session.alive
    session.close()
    assert not any(medium(tmp_path)[PAGE:])


@pytest.mark.parametrize(
    ("provider", "most"), [("", 1 << 20), pytest.param("sockets", 65 << 12, marks=needs_libfabric)]
)
def test_messages_of_any_size_are_not_granted(tmp_path, provider, most):
    """Buffers for them are held for every lane, however many there are."""
    for number, asked in enumerate((1 << 16, most + 1, MAX_MESSAGE_SIZE)):
        directory = tmp_path / str(number)
        directory.mkdir()
        with RawSession(directory, message_size=asked, provider=provider) as session:
            assert session.ready.message_size == min(asked, most)


def test_a_bad_lane_does_not_take_the_others_data(tmp_path):
    """What another lane was promised stays, although the session is over."""
    with RawSession(tmp_path, lanes=2) as session:
        good, bad = session.begin(0), session.begin(1)
        session.finish([good, bad])
        assert session.exchange(good, update(1, [(PAGE, 4)], b"good")).status == DONE
        assert session.exchange(bad, b"nonsense").status == BAD_MESSAGE
        assert session.failure() is not None
    assert medium(tmp_path)[PAGE : PAGE + 4] == b"good"


def mutated(chance, message):
    """Return a message with something wrong, or not, in it."""
    out = bytearray(message)
    for _ in range(chance.randint(1, 4)):
        what = chance.randrange(5)
        if what == 0 and out:
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
        elif what == 1 and len(out) > 8:
            # One of the 64-bit numbers becomes a notable one.
            at = 8 + 8 * chance.randrange(max(1, (len(out) - 8) // 8))
            number = chance.choice([0, 1, PAGE - 1, SIZE - 1, SIZE, WRITTEN, WRITTEN - 1, TOP - 1])
            out[at : at + 8] = struct.pack("<Q", number)
        elif what == 2:
            del out[chance.randrange(len(out) + 1) :]
        elif what == 3:
            out += chance.randbytes(chance.randint(1, 40))
        elif len(out) >= 4:
            out[2:4] = struct.pack("<H", chance.choice([0, 1, 2, 100, 0xFFFF]))
    return bytes(out)


def is_honest(message, sequence):
    """Return the ranges and data of a message that keeps the rules, None for any other."""
    if len(message) < 8:
        return None
    kind, flags, count, number = struct.unpack_from("<BBHI", message)
    if kind != UPDATE or flags & ~3 or number != sequence or len(message) < 8 + 16 * count:
        return None
    data = message[8 + 16 * count :]
    out = []
    for index in range(count):
        offset, length = struct.unpack_from("<QQ", message, 8 + 16 * index)
        written, length = length & WRITTEN, length & (WRITTEN - 1)
        if not written:
            if length > len(data):
                return None
            out.append((offset, data[:length]))
            data = data[length:]
        if offset < PAGE or offset + length > SIZE:
            return None
    return None if data else out


def test_mutated_messages_do_what_they_say_or_nothing(tmp_path):
    """Against a model: only a message that keeps every rule changes the pool."""
    chance = random.Random(7)
    expected = bytearray(SIZE)
    refused = served = 0
    create = True
    while refused < 40:
        with RawSession(tmp_path, create=create, lanes=4) as session:
            create = False
            header = image_of(tmp_path / "a.set")[:PAGE]
            lanes = [session.begin(number) for number in range(4)]
            session.finish(lanes)
            for lane in lanes:
                for sequence in range(1, 60):
                    ranges, data = [], b""
                    for _ in range(chance.randint(0, 5)):
                        length = chance.randint(0, 300)
                        ranges.append((chance.randrange(PAGE, SIZE - length), length))
                        data += chance.randbytes(length)
                    message = update(sequence, ranges, data, flags=ANSWER)
                    if chance.random() < 0.3:
                        message = mutated(chance, message)
                    stores = is_honest(message, sequence)
                    answered = len(message) < 2 or bool(message[1] & ANSWER)
                    if stores is not None and not answered:
                        break  # it would be silent; the lane is dropped with it
                    reply = session.exchange(lane, message)
                    assert reply is not None
                    assert (reply.status == DONE) == (stores is not None), message[:200].hex()
                    if stores is None:
                        refused += 1
                        break
                    served += 1
                    for offset, piece in stores:
                        expected[offset : offset + len(piece)] = piece
            assert session.alive
        image = medium(tmp_path)
        assert image[PAGE:] == expected[PAGE:]
        assert image[:PAGE] == header
    assert served > refused


# --- one-sided operations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length"), [(SIZE, 8), (SIZE - 4, 8), (1 << 40, 8), (SIZE + (1 << 20), 4096)]
)
def test_one_sided_operations_outside_end_the_lane(session, tmp_path, offset, length):
    lane = session.lane()
    before = image_of(tmp_path / "a.set")
    session.write(lane, b"x" * length, offset)
    assert session.read(lane, PAGE, 8) is None, "the lane is gone"
    assert session.alive
    assert session.failure() is not None
    session.close()
    assert medium(tmp_path)[PAGE:] == before[PAGE:]


def test_reading_outside_brings_nothing(session):
    lane = session.lane()
    assert session.read(lane, SIZE - 4, 8) is None
    assert session.alive


def test_a_guessed_key_opens_nothing(tmp_path, each_fabric):
    if each_fabric == "stream":
        pytest.skip("over a byte stream there are no keys: the connection is the right")
    with RawSession(tmp_path, lanes=2) as session:
        lanes = [session.begin(number) for number in range(2)]
        session.finish(lanes)
        assert session.exchange(lanes[0], update(1, [(PAGE, 4)], b"good")).status == DONE
        grant = session.ready.lanes[1]
        lanes[1].aim(grant.address, grant.key ^ 1, SIZE)
        session.write(lanes[1], b"stranger", PAGE + 8)
        assert session.read(lanes[1], PAGE, 8) is None
        assert session.alive
    image = medium(tmp_path)
    assert image[PAGE : PAGE + 4] == b"good"
    assert not any(image[PAGE + 4 :])


# --- tokens ------------------------------------------------------------------------------------


def wrong_proofs(session):
    """Return proofs that are none, by what is wrong with them."""
    token = session.ready.lanes[0].token
    good = pack_proof(0, token)
    flipped = bytes([token[0] ^ 1]) + token[1:]
    return {
        "missing": b"",
        "short": good[:-1],
        "no-magic": b"XXXX" + good[4:],
        "another-version": good[:5] + b"\x02" + good[6:],
        "first-byte-wrong": pack_proof(0, flipped),
        "last-byte-wrong": pack_proof(0, token[:-1] + bytes([token[-1] ^ 1])),
        "zeros": pack_proof(0, bytes(32)),
        "of-another-lane": pack_proof(1, token),
        "of-no-lane": pack_proof(60000, token),
        "long": b"A" * 200,
        "random": random.Random(3).randbytes(40),
    }


@pytest.mark.parametrize("provider", ["", SOCKETS])
def test_wrong_tokens_are_turned_down_and_the_right_one_still_works(tmp_path, provider):
    with RawSession(tmp_path, lanes=2, provider=provider) as session:
        for name, proof in wrong_proofs(session).items():
            with pytest.raises(ConnectFailed) as caught:
                session.lane(0, proof)
            assert "refused" in str(caught.value), name
        first = session.lane(0)
        # Replayed: each token is good for one lane, once.
        with pytest.raises(ConnectFailed):
            session.lane(0)
        with pytest.raises(ConnectFailed):
            session.lane(1, session.proof(0))
        second = session.lane(1)
        for lane in (first, second):
            assert session.exchange(lane, update(1, [(PAGE, 4)], b"good")).status == DONE
        assert session.failure(0.1) is None


def test_more_behind_a_proof_is_not_looked_at(tmp_path, each_fabric):
    """Some providers pad private data; the proof says where it ends. Otherwise it is no proof."""
    with RawSession(tmp_path) as session:
        if each_fabric == "stream":
            with pytest.raises(ConnectFailed):
                session.lane(0, session.proof(0) + bytes(16))
            return
        lane = session.lane(0, session.proof(0) + bytes(16))
        assert session.exchange(lane, update(1, [(PAGE, 4)], b"good")).status == DONE


def test_tokens_of_another_session_are_worthless(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with RawSession(tmp_path / "one") as one, RawSession(tmp_path / "two") as two:
        with pytest.raises(ConnectFailed):
            two.lane(0, one.proof(0))
        assert two.exchange(two.lane(0), update(1, [(PAGE, 4)], b"good")).status == DONE


def test_no_connections_once_all_lanes_are_there(session):
    lane = session.lane()
    assert session.exchange(lane, update(1, [(PAGE, 4)], b"good")).status == DONE
    with pytest.raises((FabricError, DeadlineExceeded)):
        session.lane(0, session.proof(0), timeout=2.0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", session.ready.port), 5.0)
    assert session.exchange(lane, update(2, [(PAGE, 4)], b"more")).status == DONE


def test_a_flood_of_strangers_does_not_keep_the_initiator_out(tmp_path):
    with RawSession(tmp_path, lanes=2) as session:
        before = resident(session.pid)
        for number in range(60):
            with pytest.raises(ConnectFailed):
                session.lane(0, random.Random(number).randbytes(40))
        lanes = [session.begin(number) for number in range(2)]
        session.finish(lanes)
        assert session.exchange(lanes[1], update(1, [(PAGE, 4)], b"good")).status == DONE
        assert resident(session.pid) - before < 64 << 20


# --- the listening port ------------------------------------------------------------------------


GARBAGE = {
    "nothing": b"",
    "one-byte": b"\0",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "ours-of-the-control-session": b"RPMf" + bytes(12),
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "random": random.Random(11).randbytes(1 << 16),
}


def knock(port, data, *, reset=False, linger=0.0):
    """Connect to a port, say something, go away."""
    with contextlib.suppress(OSError):
        client = socket.create_connection(("127.0.0.1", port), 5.0)
        with contextlib.suppress(OSError):
            client.sendall(data)
        time.sleep(linger)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


@pytest.mark.parametrize("provider", ["", SOCKETS])
@pytest.mark.parametrize("reset", [False, True], ids=["closing", "resetting"])
def test_garbage_at_the_port(tmp_path, reset, provider):
    """Before, between and beside the honest lanes."""
    garbage = dict(GARBAGE)
    if provider == "sockets":
        # Some bytes crash libfabric's own listening thread (1.17.0): it is to be had for PMDK's
        # sake, and not for networks with strangers.
        del garbage["random"]
    with RawSession(tmp_path, lanes=2, provider=provider) as session:
        port = session.ready.port
        for data in garbage.values():
            knock(port, data, reset=reset)
        first = session.begin(0)
        for data in garbage.values():
            knock(port, data, reset=reset, linger=0.01)
        second = session.begin(1)
        session.finish([first, second], 20.0)
        for lane in (first, second):
            assert session.exchange(lane, update(1, [(PAGE, 4)], b"good")).status == DONE
        assert session.alive


def test_silent_connections_do_not_keep_the_initiator_out(tmp_path):
    """Nor those that begin a request and stop in the middle."""
    beginning = bytes([3, 1]) + struct.pack(">H", 40) + bytes(20)
    with RawSession(tmp_path) as session, contextlib.ExitStack() as stack:
        for number in range(40):
            client = socket.create_connection(("127.0.0.1", session.ready.port), 5.0)
            stack.callback(client.close)
            client.sendall(beginning[: number % len(beginning)])
        assert session.exchange(session.lane(), update(1, [(PAGE, 4)], b"good")).status == DONE


def test_almost_requests(tmp_path):
    """What looks like a request of libfabric's tcp provider, in a thousand ways."""
    chance = random.Random(17)
    with RawSession(tmp_path) as session:
        before = resident(session.pid)
        for _ in range(1500):
            size = chance.choice([0, 1, 16, 40, 255, 256, 257, 1024, 65535])
            head = bytes([chance.choice([1, 2, 3, 3, 3, 4]), chance.randrange(8)])
            head += struct.pack(">H", size) + chance.randbytes(chance.choice([4, 12, 20]))
            body = chance.randbytes(chance.choice([0, 1, 40, 256, 300, 4096]))
            knock(session.ready.port, head + body, reset=chance.random() < 0.3)
        assert session.alive
        assert resident(session.pid) - before < 16 << 20
        assert session.exchange(session.lane(), update(1, [(PAGE, 4)], b"good")).status == DONE


def test_strangers_that_hang_up_while_they_are_turned_down(tmp_path):
    """A connection request whose sender is gone by the time it is answered."""
    with RawSession(tmp_path, lanes=2) as session:
        stop(session.pid)
        try:
            for _ in range(10):
                session.begin(0, b"nonsense")
        finally:
            for item in session._owned:
                item.close()
            session._owned.clear()
            os.kill(session.pid, signal.SIGCONT)
        lanes = [session.begin(number) for number in range(2)]
        session.finish(lanes, 20.0)
        assert session.exchange(lanes[0], update(1, [(PAGE, 4)], b"good")).status == DONE


def test_whole_lanes_of_garbage(tmp_path):
    """Long random messages on every lane: each ends its session, none the daemon or the pool."""
    chance = random.Random(13)
    create = True
    for _ in range(4):
        with RawSession(tmp_path, create=create, lanes=3) as session:
            create = False
            lanes = [session.begin(number) for number in range(3)]
            session.finish(lanes)
            for lane in lanes:
                session.send(lane, chance.randbytes(chance.randint(1, 1 << 16)))
            assert isinstance(session.failure(), RpmemError)
            assert session.alive
        found = np.frombuffer(medium(tmp_path), np.uint8)
        assert not found[PAGE:].any()
