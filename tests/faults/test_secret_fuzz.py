"""Thousands of damaged handshakes and frames against both sides of an encrypted lane.

What they are made from is in ``tests/support/secrets``: flights of handshakes that succeeded, whose
keys are known. Each trial is told by its number, which is its seed.
"""

from __future__ import annotations

import random
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from rpmem.fabric import providers
from rpmem.fabric.stream.handshake import Handshake
from rpmem.fabric.stream.keyring import Keyring
from rpmem.fabric.stream.request import Request
from rpmem.memory.region import Region
from tests.support import seeds
from tests.support.damage import damaged
from tests.support.raw_session import raw_lane

TRIALS = 5000
CORPUS = Path(__file__).resolve().parents[1] / "support" / "secrets"
NONCE = bytes(range(16))
TOKENS = [bytes([index]) * 32 for index in (1, 2)]
SIZE, OUTSIDE = 1 << 14, 1 << 13
SLOT = 4096
MESSAGE, WRITE, READ, DATA, DONE = range(1, 6)
_FRAME = struct.Struct("<IBBHQ")


def ring():
    return Keyring(NONCE, TOKENS)


def flights(kind):
    return [bytes.fromhex(path.read_text()) for path in sorted(CORPUS.glob(f"{kind}*.hex"))]


def trials(own):
    """Return the seeds of a run: others in every round of the nightly part."""
    begin = seeds.first(0) * TRIALS * 10 + own * TRIALS
    return range(begin, begin + TRIALS)


def pair():
    made = socket.socketpair()
    for each in made:
        each.setblocking(False)
    return made


def pieces(chance, data):
    """Return the data in one piece or in several, as they may arrive."""
    if chance.random() < 0.7:
        return [data]
    at = chance.randrange(len(data) + 1)
    return [data[:at], data[at:]]


@pytest.mark.parametrize("side", ["client", "server"])
def test_damaged_handshakes_open_nothing(side):
    """A handshake goes on, waits or fails; it is never done, as its other side has no key."""
    found = flights("server" if side == "client" else "client")
    assert found
    for seed in trials(side == "client"):
        chance = random.Random(seed)
        here, there = pair()
        with here, there:
            handshake = Handshake(here.fileno(), ring(), 1 if side == "client" else -1)
            with suppress(OSError):
                for piece in pieces(chance, damaged(chance, chance.choice(found))):
                    there.send(piece)
                    assert handshake.proceed() is False
            assert not handshake.done, f"seed {seed}"


def test_what_the_corpus_holds_is_right():
    """The control: a flight that is not damaged is answered."""
    for flight in flights("client"):
        here, there = pair()
        with here, there:
            there.send(flight)
            assert Handshake(here.fileno(), ring()).proceed() is False
            assert there.recv(1 << 16)[0] == 22, "a hello is answered by a handshake record"


class Served:
    """A lane of one side, encrypted, with memory of which half may be reached."""

    def __init__(self, module, target):
        self.module = module
        self.memory = Region.anonymous(SIZE)
        self.fabric = module.Fabric("stream", "127.0.0.1", 1, listen=target)
        self.domain = module.Domain(self.fabric)
        self.exposed = module.Memory(
            self.domain, self.memory.address, OUTSIDE, remote=target, keep=self.memory
        )
        self.queue = module.Queue(self.domain)

    def connect(self, ours, secret):
        lane = self.module.FabricLane(
            *(self.domain, self.queue, 0, (4, SLOT), (4, SLOT), self.exposed),
            Request(ours, b"", ("", 0), b"RPMA", secret),
        )
        lane.accept()
        lane.aim(0, 0, OUTSIDE)
        lane.post_receives()
        return lane

    def close(self):
        for each in (self.queue, self.exposed, self.domain, self.fabric, self.memory):
            each.close()


def frames(chance):
    """Return frames in good order, as either side may send them."""
    made = b""
    for _ in range(chance.randrange(1, 5)):
        kind = chance.choice([MESSAGE, WRITE, READ, DATA, DONE])
        length = 0 if kind == DONE else chance.choice([0, 1, 8, 100, SLOT, OUTSIDE])
        offset = chance.randrange(OUTSIDE - length + 1) if kind in (WRITE, READ) else 0
        body = b"" if kind == READ else chance.randbytes(length)
        made += _FRAME.pack(length, kind, kind == WRITE and chance.random() < 0.5, 0, offset) + body
    return made


@pytest.mark.parametrize("target", [True, False], ids=["target", "initiator"])
def test_damaged_frames_reach_nothing_else(target):
    """Who has the key is not trusted either: what is outside of his reach stays as it is."""
    served = Served(providers.load("stream"), target)
    raw = raw_lane()
    ended = 0
    try:
        for seed in trials(2 + target):
            chance = random.Random(seed)
            ours, theirs = pair()
            other = Handshake(theirs.fileno(), ring(), 0)
            secret = Handshake(ours.fileno(), ring())
            while not (secret.done and other.done):
                other.proceed()
                secret.proceed()
            lane = served.connect(ours, secret)
            with theirs, suppress(OSError):
                rest = damaged(chance, frames(chance))
                while rest:
                    taken = other.send(rest)
                    rest = rest[taken:]
                    raw.poll(lane)
                raw.poll(lane)
            ended += lane.fault[0] != 0
            lane.close()
            assert not any(memoryview(served.memory)[OUTSIDE:]), f"seed {seed}"
    finally:
        served.close()
    assert ended > TRIALS / 10
