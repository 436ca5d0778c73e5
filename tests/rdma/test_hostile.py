"""A hostile client that is not ours (pyverbs) at rpmemd's door, and one with a token inside."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import time

import pytest

from rpmem import errors
from rpmem.control.proof import pack_proof
from rpmem.session import lanes
from tests.rdma.support.node import HEADER, MEGABYTE, TARGET
from tests.rdma.support.places import PLACES

pytest.importorskip("pyverbs.device", reason="needs python3-pyverbs")

SIZE = 4 * MEGABYTE


class Stranger:
    """One connection of pyverbs."""

    def __init__(self, port):
        from pyverbs.cmid import CMID, AddrInfo
        from pyverbs.enums import IBV_QPT_RC
        from pyverbs.librdmacm_enums import RDMA_PS_TCP
        from pyverbs.qp import QPCap, QPInitAttr

        way = AddrInfo(src=None, dst=TARGET, dst_service=str(port), port_space=RDMA_PS_TCP)
        room = QPCap(max_send_wr=4, max_recv_wr=4, max_send_sge=1, max_recv_sge=1)
        wanted = QPInitAttr(qp_type=IBV_QPT_RC, cap=room, sq_sig_all=1)
        self.id = CMID(creator=way, qp_init_attr=wanted)

    def connect(self, data):
        """Ask to be let in; whether that was granted."""
        from pyverbs.cmid import ConnParam
        from pyverbs.pyverbs_error import PyverbsError

        wanted = ConnParam(resources=1, depth=1, data_len=len(data))
        if data:
            wanted.set_private_data(data)
        try:
            self.id.connect(wanted)
        except PyverbsError:
            return False
        return True

    def write(self, address, key, data):
        """WRITE, and wait; the work completion's status."""
        memory = self.id.reg_msgs(len(data))
        memory.write(data, len(data))
        self.id.post_write(memory, len(data), address, key)
        return self.finished(memory)

    def read(self, address, key, length):
        """READ, and wait; the work completion's status and what came."""
        memory = self.id.reg_msgs(length)
        memory.write(bytes(length), length)
        self.id.post_read(memory, length, address, key)
        status = self.finished(memory, close=False)
        data = memory.read(length, 0)
        memory.close()
        return status, data

    def finished(self, memory, close=True):
        status = self.id.get_send_comp().status
        if close:
            memory.close()
        return status

    def close(self):
        self.id.close()


class EnoughError(Exception):
    """The hostile client is done."""


@pytest.fixture
def pool(target):
    """A pool with random bytes in it, and what a session of it was granted."""
    place = PLACES["devdax"]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        memory[:] = os.urandom(SIZE)
        name = target.pool_set("a.set", *lines)
        with target.create(name, memory, nlanes=1, provider="verbs") as replica:
            replica.persist(HEADER, SIZE - HEADER)
            stale = replica._lanes._ready.lanes[0]
        yield Pool(target, name, memory, stale, lambda: place.content(lines, SIZE))


class Pool:
    """What a hostile client is after."""

    def __init__(self, target, name, memory, stale, content):
        self.target, self.name, self.memory, self.stale = target, name, memory, stale
        self.content = content
        self.spoilt = bytearray(b"\xee" * SIZE)

    def attack(self, monkeypatch, count, hostile):
        """Open the pool, and let `hostile(ready)` have the lanes in place of ours."""

        def instead(lanes, host, timeout):
            with contextlib.ExitStack() as stack:
                hostile(lanes._ready, stack)
            raise EnoughError

        with monkeypatch.context() as patch:
            patch.setattr(lanes.Lanes, "_connect", instead)
            with pytest.raises(EnoughError):
                self.target.open(self.name, self.memory, nlanes=count, provider="verbs")

    def serves(self):
        """A rightful session finds everything as it was, and can work."""
        with self.target.open(self.name, self.memory, nlanes=2, provider="verbs") as replica:
            back = bytearray(SIZE - HEADER)
            replica.read(back, HEADER)
            assert back == self.memory[HEADER:]
            self.memory[HEADER : HEADER + 5000] = os.urandom(5000)
            replica.persist(HEADER, 5000, relaxed=True)
        assert self.content()[HEADER:] == self.memory[HEADER:]

    def log(self):
        return self.target.log.read_text()

    def daemons_ended(self):
        """Every rpmemd has come to its end by itself, and none in a panic."""
        running = set(re.findall(r"rpmemd\[(\d+)\]", self.log()))
        deadline = time.monotonic() + 40
        while any(os.path.exists(f"/proc/{each}") for each in running):
            assert time.monotonic() < deadline, "an rpmemd does not end"
            time.sleep(0.1)
        assert "Traceback" not in self.log()


def admitted(stack, port, data):
    """Knock with a new connection; it, or None."""
    stranger = Stranger(port)
    stack.callback(stranger.close)
    return stranger if stranger.connect(data) else None


def test_tokens_that_are_not(pool, monkeypatch):
    """None, wrong, another lane's, another session's, a spent one; and one lane too many."""
    before = pool.content()
    seen = {}

    def hostile(ready, stack):
        first, second = (each.token for each in ready.lanes)
        wrong = bytes([first[0] ^ 1]) + first[1:]

        def knock(name, data):
            seen[name] = admitted(stack, ready.port, data) is not None

        knock("none", b"")
        knock("zeros", bytes(56))
        knock("one bit off", pack_proof(0, wrong))
        knock("of another lane", pack_proof(1, first))
        knock("of a lane that is none", pack_proof(2, first))
        knock("of a closed session", pack_proof(0, pool.stale.token))
        knock("the right one", pack_proof(0, first))
        knock("the same again", pack_proof(0, first))
        knock("the other right one", pack_proof(1, second))
        # Both lanes are there: nobody listens any more.
        knock("one too many", pack_proof(1, second))
        knock("and another", pack_proof(2, os.urandom(32)))

    pool.attack(monkeypatch, 2, hostile)
    let_in = {name for name, answer in seen.items() if answer}
    assert let_in == {"the right one", "the other right one"}
    assert pool.log().count("without a valid token was refused") == 7
    assert pool.content() == before
    pool.serves()
    pool.daemons_ended()


PLACES_OUT_OF_REACH = {
    "before the pool": lambda grant, stale: (grant.address - 4096, grant.key),
    "over its end": lambda grant, stale: (grant.address + SIZE - 8, grant.key),
    "behind its end": lambda grant, stale: (grant.address + SIZE, grant.key),
    "around the end of memory": lambda grant, stale: ((1 << 64) - 32, grant.key),
    "by another key": lambda grant, stale: (grant.address + HEADER, grant.key ^ 1),
    "by a stale key": lambda grant, stale: (stale.address + HEADER, stale.key),
}


@contextlib.contextmanager
def aimed(pool, choose):
    """A session whose WRITEs and READs at HEADER go to a place of the attacker's choice."""
    with pool.target.open(pool.name, pool.spoilt, nlanes=1, provider="verbs") as replica:
        address, key = choose(replica._lanes._ready.lanes[0], pool.stale)
        replica._lanes.lanes[0].aim((address - HEADER) % (1 << 64), key, SIZE)
        yield replica


def test_where_a_session_aims_is_where_it_goes(pool):
    """The control for the next test: this attacker does WRITE and READ where it is let."""
    before = pool.content()
    with aimed(pool, lambda grant, _: (grant.address + MEGABYTE, grant.key)) as replica:
        back = bytearray(64)
        replica.read(back, HEADER)
        assert back == before[MEGABYTE : MEGABYTE + 64]
        replica.persist(HEADER, 4096, relaxed=True)
    assert pool.content()[MEGABYTE : MEGABYTE + 4096] == bytes(pool.spoilt[:4096])


# Each takes four sessions; the others are refused for the same reasons.
_OFTEN = ("before the pool", "over its end", "by a stale key")
everywhere = pytest.mark.parametrize(
    "where",
    [
        pytest.param(name, marks=() if name in _OFTEN else pytest.mark.slow)
        for name in PLACES_OUT_OF_REACH
    ],
)


@everywhere
def test_memory_out_of_reach(pool, where):
    """Who has a token gets at nothing but the pool, and by this session's key."""
    before = pool.content()
    with (
        aimed(pool, PLACES_OUT_OF_REACH[where]) as replica,
        pytest.raises((errors.ReplicaLost, errors.DeadlineExceeded)),
    ):
        replica.persist(HEADER, 4096, relaxed=True)
    back = bytearray(64)
    with (
        aimed(pool, PLACES_OUT_OF_REACH[where]) as replica,
        pytest.raises((errors.ReplicaLost, errors.DeadlineExceeded)),
    ):
        replica.read(back, HEADER)
    assert not any(back)
    assert pool.content() == before
    pool.serves()
    pool.daemons_ended()


def inside(pool, monkeypatch, hostile):
    """Let a foreign client that has the session's token do its worst."""

    def with_token(ready, stack):
        grant = ready.lanes[0]
        stranger = admitted(stack, ready.port, pack_proof(0, grant.token))
        assert stranger is not None
        hostile(stranger, grant)

    pool.attack(monkeypatch, 1, with_token)


def test_a_foreign_client_reaches_the_pool(pool, monkeypatch):
    """The control for the next test: its requests do arrive where they may."""
    from pyverbs.enums import IBV_WC_SUCCESS

    before = pool.content()
    found = []

    def hostile(stranger, grant):
        found.append(stranger.read(grant.address + MEGABYTE, grant.key, 64))
        found.append(stranger.write(grant.address + MEGABYTE, grant.key, b"\xee" * 64))
        # What was WRITTEN has arrived once a READ behind it has been answered.
        stranger.read(grant.address, grant.key, 8)

    inside(pool, monkeypatch, hostile)
    assert found == [(IBV_WC_SUCCESS, before[MEGABYTE : MEGABYTE + 64]), IBV_WC_SUCCESS]
    assert pool.content()[MEGABYTE : MEGABYTE + 64] == b"\xee" * 64


@pytest.mark.parametrize("what", ["write", "read"])
@everywhere
def test_a_foreign_client_gets_at_nothing_else(pool, monkeypatch, where, what):
    """A token lets it in; the device still refuses what is not this session's pool."""
    from pyverbs.enums import IBV_WC_REM_ACCESS_ERR

    before = pool.content()
    found = []

    def hostile(stranger, grant):
        address, key = PLACES_OUT_OF_REACH[where](grant, pool.stale)
        if what == "write":
            found.append((stranger.write(address, key, b"\xee" * 64), bytes(64)))
        else:
            found.append(stranger.read(address, key, 64))

    inside(pool, monkeypatch, hostile)
    assert found == [(IBV_WC_REM_ACCESS_ERR, bytes(64))]
    assert pool.content() == before
    pool.serves()
    pool.daemons_ended()


def test_a_session_survives_those_at_its_door(pool, monkeypatch):
    """Strangers while lanes are awaited: the rightful lanes come after them and work."""
    original = lanes.Lanes._connect
    refused = []

    def after_strangers(self, host, timeout):
        with contextlib.ExitStack() as stack:
            port = self._ready.port
            refused.extend(admitted(stack, port, os.urandom(56)) is None for _ in range(20))
        return original(self, host, timeout)

    monkeypatch.setattr(lanes.Lanes, "_connect", after_strangers)
    pool.serves()
    assert refused == [True] * 20
    assert errors.ConnectFailed.__name__ not in pool.log()
    pool.daemons_ended()
