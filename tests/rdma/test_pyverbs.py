"""pyverbs: a user's own objects in our sessions, and an independent client at our door."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from rpmem.errors import UsageError
from tests.rdma.support.node import HEADER, INITIATOR, MEGABYTE, TARGET
from tests.rdma.support.places import PLACES

pytest.importorskip("pyverbs.device", reason="needs python3-pyverbs")
verbs = pytest.importorskip(
    "rpmem.fabric.verbs.api",
    reason="libibverbs or librdmacm is not here",
    exc_type=ImportError,
)

SIZE = 4 * MEGABYTE
RANGES = [(HEADER, 8), (8191, 66), (100_001, 70_003), (MEGABYTE, MEGABYTE + 5)]


def device_of_the_initiator():
    end = verbs.Fabric("verbs", INITIATOR, listen=True)
    name = end.description["domain"]
    end.close()
    return name


@pytest.fixture
def domain():
    from pyverbs.device import Context
    from pyverbs.pd import PD

    context = Context(name=device_of_the_initiator())
    domain = PD(context)
    yield domain
    domain.close()
    context.close()


@pytest.fixture
def buffer():
    with mmap.mmap(-1, SIZE) as memory:
        memory[:] = os.urandom(SIZE)
        yield memory


@pytest.fixture
def registered(domain, buffer):
    from pyverbs.enums import IBV_ACCESS_LOCAL_WRITE
    from pyverbs.mr import MR

    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    memory = MR(domain, SIZE, IBV_ACCESS_LOCAL_WRITE, address=address)
    yield memory
    memory.close()


@pytest.mark.parametrize("with_memory", [False, True])
def test_lanes_in_the_users_own_domain(target, domain, buffer, request, with_memory):
    shared = (domain, request.getfixturevalue("registered")) if with_memory else domain
    with PLACES["tmpfs"].parts(SIZE) as lines, target.tidying():
        name = target.pool_set("a.set", *lines)
        with target.create(name, buffer, nlanes=2, provider="verbs", shared=shared) as replica:
            for relaxed in (False, True):
                for offset, length in RANGES:
                    buffer[offset : offset + length] = os.urandom(length)
                    replica.persist(offset, length, relaxed=relaxed)
            there = bytearray(SIZE - HEADER)
            replica.read(there, HEADER)
            for offset, length in RANGES:
                at = offset - HEADER
                assert there[at : at + length] == buffer[offset : offset + length]


def test_the_users_memory_is_not_registered_again(domain, registered):
    shared = verbs.share((domain, registered))
    assert shared.key_of(registered.buf, SIZE) == registered.lkey
    assert shared.key_of(registered.buf + 4096, 100) == registered.lkey
    assert shared.key_of(registered.buf + 1, SIZE) is None
    assert shared.key_of(registered.buf - 1, 2) is None


def test_other_objects_are_refused(target, domain, registered, buffer):
    from pyverbs.device import Context
    from pyverbs.pd import PD

    other = PD(Context(name=device_of_the_initiator()))
    with pytest.raises(UsageError, match="not registered in this protection domain"):
        verbs.share((other, registered))
    other.close()
    with pytest.raises(UsageError, match=r"not a pyverbs\.pd\.PD"):
        verbs.share("a string")
    with pytest.raises(UsageError, match=r"not a pyverbs\.mr\.MR"):
        verbs.share((domain, "a string"))
    with PLACES["tmpfs"].parts(SIZE) as lines, target.tidying():
        name = target.pool_set("a.set", *lines)
        with pytest.raises(UsageError, match="tcp has no protection domains"):
            target.create(name, buffer, provider="tcp", shared=domain)


def test_a_strange_client_is_not_let_in(target, monkeypatch, buffer):
    """Another implementation asks for a connection while lanes are awaited."""
    from rpmem.session import lanes

    answers = []
    original = lanes.Lanes._connect

    def after_a_stranger(self, host, timeout):
        proofs = (None, bytes(40), b"RPML" + bytes(36), b"x" * 56)
        answers.extend(_knock(self._ready.port, data) for data in proofs)
        return original(self, host, timeout)

    monkeypatch.setattr(lanes.Lanes, "_connect", after_a_stranger)
    with PLACES["tmpfs"].parts(SIZE) as lines, target.tidying():
        name = target.pool_set("a.set", *lines)
        with target.create(name, buffer, nlanes=1, provider="verbs") as replica:
            replica.persist(HEADER, 1000)
    assert answers == ["refused"] * 4
    assert "without a valid token" in target.log.read_text()


def _knock(port, data):
    """Connect by pyverbs; "refused", or "let in"."""
    from pyverbs.cmid import CMID, AddrInfo, ConnParam
    from pyverbs.librdmacm_enums import RDMA_PS_TCP
    from pyverbs.pyverbs_error import PyverbsError
    from pyverbs.qp import QPCap, QPInitAttr

    address = AddrInfo(src=None, dst=TARGET, dst_service=str(port), port_space=RDMA_PS_TCP)
    client = CMID(creator=address, qp_init_attr=QPInitAttr(cap=QPCap(max_recv_wr=1)))
    try:
        wanted = ConnParam(data_len=len(data) if data else 0)
        if data:
            wanted.set_private_data(data)
        client.connect(wanted)
    except PyverbsError:
        return "refused"
    else:
        return "let in"
    finally:
        client.close()
