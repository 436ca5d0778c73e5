"""Strangers at encrypted lanes: OpenSSL's own programs, and someone in the middle.

Each is refused, or the lane is lost, before a byte of the pool has moved the wrong way; and none
keeps the real lanes from coming.
"""

from __future__ import annotations

import os
import random
import socket
import time

import pytest

from rpmem.errors import ConnectFailed, DeadlineExceeded, ReplicaLost, RpmemError
from rpmem.fabric.stream.keyring import Keyring
from tests.support.pair import LISTENING
from tests.support.secret import Middle, certificate, client, secret_pair, server

SECRET = b"a page that nobody else may read " * 124
TLS_1_3 = ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256")
SOON_S = 2.0
MANY = 300


def key_of(one, lane=0):
    return ("-psk_identity", one.identity(lane), "-psk", one.tokens[lane].hex())


def persist(core, one):
    memoryview(one.here)[4096 : 4096 + len(SECRET)] = SECRET
    core.persist((4096, len(SECRET)))


def arrived(one):
    return bytes(memoryview(one.there)[4096 : 4096 + len(SECRET)]) == SECRET


def is_admitted(said):
    return "RPMA" in said


# --- clients of another kind ----------------------------------------------------------


def test_who_has_the_key_is_let_in():
    """The control: openssl's client speaks the same, so that the refusals below mean something."""
    with secret_pair() as one:
        assert is_admitted(client(one.server.port, *TLS_1_3, *key_of(one)))


def strangers(one):
    wrong = os.urandom(32).hex()
    return {
        "no key": TLS_1_3,
        "a wrong key": (*TLS_1_3, "-psk_identity", one.identity(), "-psk", wrong),
        "another lane's key": (
            *TLS_1_3,
            *("-psk_identity", one.identity(0), "-psk", one.tokens[1].hex()),
        ),
        "an unknown name": (*TLS_1_3, "-psk_identity", "Client_identity", "-psk", wrong),
        "no such lane": (*TLS_1_3, "-psk_identity", one.identity(9), "-psk", wrong),
        "an old version": ("-tls1_2", "-psk", wrong),
        "a name that goes on": (
            *TLS_1_3,
            *("-psk_identity", one.identity() + "x", "-psk", one.tokens[0].hex()),
        ),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("no key", "a wrong key", "another lane's key", "an unknown name", "no such lane"),
        *("an old version", "a name that goes on"),
    ],
)
def test_a_client_that_is_not_ours_is_refused(kind):
    with secret_pair(lanes=2) as one:
        assert not is_admitted(client(one.server.port, *strangers(one)[kind]))
        persist(one.connect(), one)
        assert arrived(one)


def test_a_client_with_a_certificate_is_refused(tmp_path):
    made, key = certificate(tmp_path)
    with secret_pair() as one:
        words = ("-cert", str(made), "-key", str(key))
        assert not is_admitted(client(one.server.port, *TLS_1_3, *words))
        persist(one.connect(), one)
        assert arrived(one)


def test_a_token_is_good_for_one_lane():
    with secret_pair(lanes=2) as one:
        assert is_admitted(client(one.server.port, *TLS_1_3, *key_of(one)))
        assert not is_admitted(client(one.server.port, *TLS_1_3, *key_of(one)))


# --- servers of another kind ----------------------------------------------------------


def refused_by(one, port):
    one.ready = one.ready.replaced(port=port)
    with pytest.raises((ConnectFailed, DeadlineExceeded)) as caught:
        one.connect(timeout=10.0)
    return str(caught.value)


def test_a_server_with_a_certificate_gets_nothing(tmp_path):
    made, key = certificate(tmp_path)
    words = ("-cert", str(made), "-key", str(key), "-tls1_3")
    with secret_pair() as one, server(*words) as (port, said):
        assert "certificate verify failed" in refused_by(one, port)
        assert "CIPHER is" not in said()


def test_a_server_with_an_old_token_gets_nothing():
    old = os.urandom(32).hex()
    with secret_pair() as one:
        words = (*TLS_1_3, "-nocert", "-psk_identity", one.identity(), "-psk", old)
        with server(*words) as (port, _):
            assert "TLS" in refused_by(one, port)


def test_a_server_without_a_key_gets_nothing():
    with secret_pair() as one, server(*TLS_1_3, "-nocert") as (port, _):
        assert "TLS" in refused_by(one, port)


def test_the_handshake_with_a_server_that_has_the_key_succeeds():
    """The control: it fails only later, where rpmemd would answer."""
    with secret_pair() as one:
        words = (*TLS_1_3, "-nocert", *key_of(one))
        with server(*words) as (port, said):
            one.ready = one.ready.replaced(port=port)
            with pytest.raises(DeadlineExceeded):
                one.connect(timeout=1.0)
            assert "CIPHER is TLS_AES_128_GCM_SHA256" in said()


# --- in the middle --------------------------------------------------------------------


def test_who_only_listens_learns_nothing():
    with secret_pair(lanes=2) as one, Middle(one.server.port) as middle:
        one.ready = one.ready.replaced(port=middle.port)
        persist(one.connect(), one)
        assert arrived(one)
        seen = bytes(middle.seen)
    assert len(seen) > len(SECRET)
    assert one.nonce.hex().encode() in seen
    assert SECRET[:16] not in seen
    assert not any(token[at : at + 8] in seen for token in one.tokens for at in range(0, 32, 8))


def acts(chance):
    """What someone in the middle may do to the n-th record of one way."""
    held = []

    def swap(record):
        if not held:
            held.append(record)
            return []
        return [record, held.pop()]

    def change(record):
        at = chance.randrange(5, len(record))
        return [record[:at] + bytes([record[at] ^ 1 << chance.randrange(8)]) + record[at + 1 :]]

    return {
        "change": change,
        "drop": lambda record: [],
        "replay": lambda record: [record, record],
        "reorder": swap,
        "shorten": lambda record: [record[:-1]],
        "make up": lambda record: [b"\x17\x03\x03\x00\x20" + chance.randbytes(32), record],
    }


@pytest.mark.parametrize("act", ["change", "drop", "replay", "reorder", "shorten", "make up"])
@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("number", [0, 1, 2, 4])
def test_what_is_done_to_a_record_is_refused_or_ends_the_lane(act, up, number):
    """Records 0 to 2 are those of the handshake; what was acknowledged has arrived, or nothing."""
    done = []
    do = acts(random.Random(number))[act]

    def meddle(upwards, index, record):
        if upwards is up and (index == number or (act == "reorder" and index == number + 1)):
            done.append(index)
            return do(record)
        return [record]

    acknowledged = 0
    with secret_pair() as one, Middle(one.server.port, meddle) as middle:
        one.ready = one.ready.replaced(port=middle.port)
        problem = None
        try:
            core = one.connect(timeout=0.5, patience=0.5)
            for _ in range(8):
                persist(core, one)
                acknowledged += 1
        except RpmemError as error:
            problem = error
        assert done, "there was no such record"
        assert problem is not None, "nobody noticed"
        assert isinstance(problem, ConnectFailed | DeadlineExceeded | ReplicaLost), problem
        there = bytes(memoryview(one.there))
        assert there.strip(b"\0") in (b"", SECRET.strip(b"\0"))
        if acknowledged:
            assert arrived(one)


def first_flight(one):
    """Return the first thing that a client with the key says."""
    from rpmem.fabric.stream.handshake import Handshake

    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        ring = Keyring(one.nonce, one.tokens)
        assert Handshake(here.fileno(), ring, 0).proceed() is False
        return there.recv(1 << 16)


@pytest.mark.parametrize("what", ["a hello that was seen", "half a hello", "nothing", "noise"])
def test_half_open_handshakes_delay_nobody(what):
    """A hello that was seen names the lane rightly, and proves nothing."""
    with secret_pair(lanes=4) as one:
        hello = first_flight(one)
        said = {
            "a hello that was seen": hello,
            "half a hello": hello[: len(hello) // 2],
            "nothing": b"",
            "noise": random.Random(3).randbytes(300),
        }[what]
        before = len(os.listdir("/proc/self/fd"))
        crowd = []
        try:
            for _ in range(MANY):
                crowd.append(socket.create_connection((LISTENING, one.server.port), 5))
                crowd[-1].sendall(said)
            begun = time.monotonic()
            core = one.connect(timeout=10.0)
            assert time.monotonic() - begun < SOON_S
            persist(core, one)
            assert arrived(one)
        finally:
            for each in crowd:
                each.close()
        # Each lane has its socket at both ends, its queues and what they poll with.
        assert len(os.listdir("/proc/self/fd")) - before < 40
