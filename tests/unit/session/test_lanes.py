"""Lanes without a control session: both ends in one process, over a real fabric."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rpmemd.lane_server
from rpmem import Region
from rpmem.control.messages import LaneGrant, Ready
from rpmem.control.proof import PROOF_SIZE, Tokens, new_token, pack_proof
from rpmem.errors import (
    ConnectFailed,
    DeadlineExceeded,
    FabricError,
    MalformedMessage,
    ProviderUnavailable,
    ReplicaLost,
    RpmemError,
)
from rpmem.session.lanes import Lanes
from rpmemd.lane_server import NATIVE
from tests.support.fabrics import SOCKETS, TCP
from tests.support.pair import LISTENING, SIZE, pair
from tests.support.raw_session import raw_lane
from tests.support.targets import Node
from tests.support.traces import Traces

PAGE = 4096
#: On the wire of RDMA-CM there are 56 bytes for it.
LONGEST_PROOF = 56


def bytes_of(region, offset=0, length=None):
    with memoryview(region) as view:
        return bytes(view[offset : len(view) if length is None else offset + length])


def fill(region, seed, offset=0, length=None):
    with memoryview(region) as view:
        end = len(view) if length is None else offset + length
        view[offset:end] = random.Random(seed).randbytes(end - offset)


# --- the sizes that are negotiated -------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("message_size", [128, 129, 200, 1000, 4096, 1 << 16, 1 << 20])
def test_any_message_size_and_window(message_size, window):
    chance = random.Random(f"{message_size}/{window}")
    with pair(message_size=message_size, window=window) as both:
        core = both.connect()
        expected = bytearray(SIZE)
        lengths = [1, 8, 64, 100, 4096, 16384, 16385, 50_000]
        for length in lengths:
            for relaxed in (False, True):
                offset = chance.randrange(SIZE - length)
                fill(both.here, length, offset, length)
                expected[offset : offset + length] = bytes_of(both.here, offset, length)
                core.persist((offset, length), relaxed=relaxed)
        table = [(chance.randrange(SIZE - 200), chance.randint(1, 200)) for _ in range(300)]
        for offset, length in table:
            fill(both.here, offset, offset, length)
        for offset, length in table:
            expected[offset : offset + length] = bytes_of(both.here, offset, length)
        core.persist_many(table)
        for offset, length in table[:50]:
            core.flush((offset, length))
        core.drain()
        assert bytes_of(both.there) == expected
        assert both.reports == []


def test_a_message_that_cannot_hold_a_word_is_refused():
    """Strict data end at multiples of 64 bytes: smaller messages could never be filled."""
    fields = {
        "provider": "tcp",
        "port": 1,
        "lanes": (LaneGrant(token=bytes(32), key=0, address=0),),
        "pool_size": 1,
        "steps": ("send-after-write",),
    }
    Ready(**fields, message_size=128)
    with pytest.raises((MalformedMessage, ValueError)):
        Ready(**fields, message_size=64)


@pytest.mark.parametrize("provider", ["stream", TCP, SOCKETS])
def test_no_more_lanes_than_the_provider_has(provider):
    with pair(lanes=200, provider=provider) as both:
        assert both.server.granted == min(200, both.server.fabric.lane_limit)
        core = both.connect(timeout=60.0)
        assert core.lanes == both.server.granted
        fill(both.here, 1)
        for lane in range(core.lanes):
            core.persist((lane * 64, 64), lane=lane)
        length = core.lanes * 64
        assert bytes_of(both.there, 0, length) == bytes_of(both.here, 0, length)


def test_every_lane_at_once():
    with pair(lanes=32) as both:
        core = both.connect(timeout=60.0)
        fill(both.here, 2)
        piece = SIZE // 32

        def work(lane):
            for offset in range(lane * piece, (lane + 1) * piece, 1000):
                core.persist((offset, min(1000, (lane + 1) * piece - offset)), lane=lane)

        threads = [threading.Thread(target=work, args=(lane,)) for lane in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bytes_of(both.there) == bytes_of(both.here)


# --- waiting -----------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("provider", ["stream", TCP, SOCKETS])
@pytest.mark.parametrize("spin", [0.0, 50e-6], ids=["sleeping", "spinning"])
def test_no_call_sleeps_through_its_answer(provider, spin):
    """A wait ends after 100 ms at the latest, the target's after 500: answers must end it."""
    chance = random.Random(1)
    slow = 0
    with pair(provider=provider) as both:
        core = both.connect(spin=spin)
        for _ in range(400):
            time.sleep(chance.random() * 4e-4)
            begun = time.perf_counter()
            core.persist((0, 64))
            slow += time.perf_counter() - begun > 0.09
    assert slow < 8, f"{slow} of 400 calls took as long as a wait may last"


def cpu_of(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("provider", ["stream", TCP, SOCKETS])
def test_an_idle_session_costs_nothing(tmp_path, provider):
    node = Node.local(tmp_path / "node", provider=provider)
    try:
        replica = node.create(bytearray(2 << 20))
    except ProviderUnavailable as absent:
        pytest.skip(str(absent))
    with replica:
        replica.persist(PAGE, 64)
        time.sleep(0.2)
        before = cpu_of(replica.peer.pid), time.process_time()
        time.sleep(2.0)
        there, here = cpu_of(replica.peer.pid) - before[0], time.process_time() - before[1]
        assert there <= 0.1
        assert here <= 0.1


def test_a_target_that_does_nothing_is_given_up_in_time():
    """Connected and never served: the call ends with the deadline, and so do all later ones."""
    with pair(lanes=2) as both:
        both.server._serve = lambda: None
        core = both.connect(patience=0.5)
        begun = time.monotonic()
        with pytest.raises(ReplicaLost, match="fault -5"):
            core.persist((0, 64))
        assert 0.4 < time.monotonic() - begun < 20
        with pytest.raises(ReplicaLost):
            core.persist((0, 64))


def test_no_lane_comes_free_in_time():
    with pair(lanes=1) as both:
        both.server._serve = lambda: None
        core = both.connect(patience=1.0)
        errors = []

        def work():
            try:
                core.persist((0, 64))
            except RpmemError as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
            assert not thread.is_alive()
        assert len(errors) == 3
        for error in errors:
            assert isinstance(error, ReplicaLost | DeadlineExceeded)


def test_lanes_that_never_come(monkeypatch):
    monkeypatch.setattr(rpmemd.lane_server, "ACCEPT_TIMEOUT_S", 0.3)
    with pair(lanes=2) as both:
        deadline = time.monotonic() + 20
        while not both.reports and time.monotonic() < deadline:
            time.sleep(0.01)
        (report,) = both.reports
        assert isinstance(report, DeadlineExceeded)
        assert "0 of 2 lanes" in str(report)


@pytest.mark.parametrize("provider", ["stream", TCP])
def test_nobody_listens(provider):
    with socket.socket() as taken:
        taken.bind((LISTENING, 0))
        ready = Ready(
            provider=provider,
            address=LISTENING,
            port=taken.getsockname()[1],
            lanes=(LaneGrant(token=bytes(32), key=0, address=0),),
            pool_size=SIZE,
            steps=("send-after-write",),
            message_size=4096,
        )
        with pytest.raises((FabricError, DeadlineExceeded)) as caught:
            Lanes(ready, [LISTENING], Region.anonymous(SIZE), timeout_s=3.0)
        assert str(caught.value)


def test_lanes_are_refused_with_another_token():
    with pair(lanes=1) as both:
        grants = tuple(
            LaneGrant(token=new_token(), key=grant.key, address=grant.address)
            for grant in both.ready.lanes
        )
        honest, both.ready = both.ready, both.ready.replaced(lanes=grants)
        with pytest.raises(ConnectFailed, match="refused"):
            both.connect()
        both.ready = honest
        both.connect().persist((0, 8))
        assert both.server.refused == 1


def test_servers_come_and_go_without_a_trace():
    def once():
        with pair(lanes=2) as both:
            both.connect().persist((0, 8))

    once()
    before = Traces.now()
    for _ in range(5):
        once()
    assert not before.more()


def test_a_wait_that_is_not_on_yet_is_ended_too():
    """Who is told to stop between its last look and its sleep must not sleep on."""
    raw = raw_lane()
    with pair() as both:
        both.connect()
        assert both.lanes is not None
        lane = both.lanes.lanes[0]
        while raw.wait(lane, 0):  # whatever rang while it was being connected
            raw.poll(lane)
        raw.wake(lane)
        begun = time.monotonic()
        assert raw.wait(lane, 5000)
        assert time.monotonic() - begun < 2.0
        # Once, not for ever.
        assert not raw.wait(lane, 10)


# --- proofs ------------------------------------------------------------------------------------


@given(
    lanes=st.integers(1, 5),
    order=st.permutations(range(5)),
    noise=st.lists(st.binary(max_size=80), max_size=5),
)
def test_each_token_is_good_once(lanes, order, noise):
    given_out = tuple(new_token() for _ in range(lanes))
    tokens = Tokens(given_out)
    for junk in noise:
        assert tokens.redeem(junk) is None
    left = lanes
    for lane in order:
        proof = pack_proof(lane, given_out[lane]) if lane < lanes else pack_proof(lane, bytes(32))
        assert tokens.redeem(proof) == (lane if lane < lanes else None)
        assert tokens.redeem(proof) is None
        left -= lane < lanes
        assert len(tokens) == left


@given(lane=st.integers(0, 0xFFFF), at=st.integers(0, PROOF_SIZE - 1), bit=st.integers(0, 7))
def test_every_bit_of_a_proof_counts(lane, at, bit):
    token = new_token()
    tokens = Tokens((token,))
    proof = bytearray(pack_proof(0, token))
    proof[at] ^= 1 << bit
    assert tokens.redeem(bytes(proof)) is None
    assert len(tokens) == 1


def test_a_proof_fits_into_a_connection_request():
    assert PROOF_SIZE <= LONGEST_PROOF
    assert len(pack_proof(1023, new_token())) == PROOF_SIZE
    assert NATIVE.name == "native"
