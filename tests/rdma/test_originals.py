"""PMDK's own librpmem and rpmemd over verbs, each against ours, and against each other."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os

import pytest

from rpmem import errors
from tests.interop.support.attributes import Attributes
from tests.interop.support.client import RpmemClient, pattern
from tests.interop.support.originals import Originals
from tests.rdma.support import node
from tests.rdma.support.node import HEADER, MEGABYTE, ROOT, TARGET
from tests.rdma.support.places import PLACES

PEERS = ROOT / "peers"
pytestmark = pytest.mark.skipif(
    bool(node.KERNEL) and not PEERS.is_dir(), reason="PMDK's originals: make peers"
)

SIZE = 4 * MEGABYTE
LENGTH = 100_003
CALLS = {
    "persist": (("persist", 1, 0),),
    "persist-relaxed": (("persist", 2, 1),),
    "deep": (("deep", 0),),
    "flush": (("flush", 3, 0), ("drain", 3, 0)),
    "flush-relaxed": (("flush", 1, 1), ("drain", 1, 0)),
}


@pytest.fixture(params=["ours", pytest.param("original", marks=pytest.mark.slow)])
def daemon(request, target):
    """Which rpmemd the target runs."""
    if request.param == "original":
        run_the_original(target)
    return request.param


def run_the_original(target):
    # It finds its own libraries, and everything else in the guest.
    target.environment = {"LD_LIBRARY_PATH": f"{PEERS}/lib"}
    target.program = [f"{PEERS}/usr/bin/rpmemd"]


@contextlib.contextmanager
def librpmem(target):
    """A C program on the original librpmem."""
    libraries = {"LD_LIBRARY_PATH": f"{PEERS}/lib"}
    variables = {"RPMEM_CMD": target.command, "RPMEM_ENABLE_VERBS": "1"}
    program = RpmemClient(Originals(PEERS, PEERS), {**os.environ, **libraries, **variables})
    try:
        yield program
    finally:
        program.kill()


def say(program, call, at):
    """One call of librpmem on LENGTH bytes at `at`."""
    for name, *more in CALLS[call]:
        place = () if name == "drain" else (at, LENGTH)
        program.do(name, *place, *more)


@pytest.mark.parametrize("apm", [False, True], ids=["gpspm", "apm"])
def test_the_original_librpmem(target, daemon, apm):
    target.options = ["--persist-apm"] if apm else []
    place = PLACES["devdax"]
    with place.parts() as lines, librpmem(target) as program:
        name = target.pool_set("a.set", *lines)
        program.do("pool", SIZE)
        program.do("attr", Attributes().hex())
        assert program.do("create", TARGET, name, 4)["nlanes"] == 4
        assert ("Appliance" in target.log.read_text()) == apm
        model = bytearray(place.content(lines, SIZE))
        for seed, call in enumerate(CALLS):
            at = HEADER + 5 + seed * (LENGTH + 61)
            program.do("fill", at, LENGTH, seed + 1)
            say(program, call, at)
            model[at : at + LENGTH] = pattern(at, LENGTH, seed + 1)
            assert place.content(lines, SIZE)[HEADER:] == model[HEADER:], call
            assert program.do("compare", at, LENGTH, 2)["same"]
        program.do("setattr")
        program.do("close")
        assert program.do("open", TARGET, name, 1)["nlanes"] == 1
        assert program.do("compare", HEADER + 5, LENGTH, 0)["same"]
        program.do("close")
        assert place.content(lines, SIZE)[HEADER:] == model[HEADER:]
        program.do("remove", TARGET, name, 0)


@pytest.mark.parametrize(
    "apm", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["gpspm", "apm"]
)
def test_the_original_rpmemd(target, apm):
    run_the_original(target)
    target.options = ["--persist-apm"] if apm else []
    place = PLACES["devdax"]
    with place.parts() as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        replica = target.create(name, memory, nlanes=3, provider="verbs")
        assert replica.step == ("read-after-write" if apm else "send-after-write")
        model = bytearray(place.content(lines, SIZE))
        for turn, relaxed in enumerate((False, True, False, True)):
            at = HEADER + 5 + turn * (LENGTH + 61)
            memory[at : at + LENGTH] = os.urandom(LENGTH)
            if turn < 2:
                replica.persist(at, LENGTH, relaxed=relaxed)
            else:
                replica.flush(at, LENGTH, relaxed=relaxed)
                replica.drain()
            model[at : at + LENGTH] = memory[at : at + LENGTH]
            assert place.content(lines, SIZE)[HEADER:] == model[HEADER:]
        memory[MEGABYTE : MEGABYTE + 99] = model[MEGABYTE : MEGABYTE + 99] = os.urandom(99)
        replica.deep_persist(MEGABYTE, 99)
        back = bytearray(SIZE - HEADER)
        replica.read(back, HEADER)
        assert back == model[HEADER:]
        replica.close()
        with target.open(name, memory, nlanes=1, provider="verbs") as again:
            assert again.attributes.signature == b"RDMATEST"
            again.read(back, HEADER)
            assert back == model[HEADER:]
        assert place.content(lines, SIZE)[HEADER:] == model[HEADER:]


def test_files_of_the_page_cache_are_refused(target, daemon):
    """Neither daemon serves what its device cannot reach; neither keeps a part of it."""
    with PLACES["disk"].parts(SIZE) as lines, librpmem(target) as program:
        name = target.pool_set("a.set", *lines)
        program.do("pool", SIZE)
        program.do("attr", Attributes().hex())
        assert program.errno("create", TARGET, name, 4) == errno.EREMOTEIO
        assert not os.path.exists(lines[0].split()[1])


def test_lanes_of_librpmem_from_elsewhere_are_refused(target):
    """What ours does that the original does not: it looks where lanes come from."""
    with PLACES["tmpfs"].parts(SIZE) as lines, mmap.mmap(-1, SIZE) as memory, target.tidying():
        name = target.pool_set("a.set", *lines)
        target.environment = {"SSH_CONNECTION": f"10.77.0.9 40000 {TARGET} 22"}
        with librpmem(target) as program:
            program.do("pool", SIZE)
            program.do("attr", Attributes().hex())
            assert program.errno("create", TARGET, name, 2)
        assert "not the ssh peer, was refused" in target.log.read_text()
        with pytest.raises(errors.RpmemError):
            target.open(name, memory, provider="verbs")
