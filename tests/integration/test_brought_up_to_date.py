"""Copies that are brought up to date: equal afterwards, and sent nothing but what differed."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

import rpmem
from rpmem.errors import MalformedMessage, RpmemError
from tests.support import faulty_rpmemd, hanging_rpmemd
from tests.support.behind import (
    FEW,
    LENGTH,
    PAGE,
    SIZE,
    Place,
    Sent,
    need_digests,
    without_digests,
)
from tests.support.fabrics import needs_libfabric
from tests.support.pools import OWN, PoolNode

need_digests()


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def sent(monkeypatch):
    """Return what is sent from now on, or since it was cleared."""
    return Sent(monkeypatch)


def test_an_absence(place, sent):
    chance = random.Random(2)
    changed = [chance.randrange(LENGTH) for _ in range(60)]

    def change(array):
        array[changed] += 1

    place.alone(change)
    place.reopen()
    place.check()
    pages = {place.page(index) for index in changed}
    assert sent.pages >= pages
    assert len(sent.pages) <= len(pages) + FEW
    sent.clear()
    place.reopen()
    assert sent == []


@pytest.mark.parametrize("share", [0.001, 0.2, 0.9])
def test_any_number_of_pages_may_differ(place, sent, share):
    chance = np.random.default_rng(3)
    pages = np.flatnonzero(chance.random(LENGTH // PAGE) < share)

    def change(array):
        array[pages * PAGE + chance.integers(0, PAGE, len(pages))] ^= 0x10

    place.alone(change)
    place.reopen()
    place.check()
    assert len(pages) <= len(sent.pages) <= len(pages) + FEW


DIES = """
import os, sys, rpmem
pool = rpmem.Pool.open(sys.argv[1], sys.argv[2])
a = pool["a"]
for at in map(int, sys.argv[3:]):
    a[at] += 1
os._exit(0)
"""


@pytest.mark.parametrize("stored", [(), (0,), (5, 70_000, LENGTH - 1)])
def test_a_program_that_died(place, sent, stored):
    """What it stored and did not persist is in the local file, and so it is sent."""
    words = [sys.executable, "-c", DIES, place.local, place.replica, *map(str, stored)]
    subprocess.run(words, check=True)
    place.settle()
    place.reopen()
    place.check()
    assert sent.pages >= {place.page(index) for index in stored}
    assert len(sent.pages) <= len(stored) + FEW


def test_a_replica_that_was_detached_and_comes_back(place, sent):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        pool["a"][100_000] += 1
        pool.persist(pool["a"][100_000:100_001])
        sent.clear()
        pool.attach(place.replica)
        assert place.page(100_000) in sent.pages
        assert len(sent.pages) <= 1 + FEW
        pool["a"][200_000] += 1
        pool.persist(pool["a"][200_000:200_001])
    place.check()


def test_a_byte_that_was_flipped_meanwhile_is_mended(place, sent):
    chance = random.Random(4)
    places = [OWN + 4096, SIZE - 1, *(chance.randrange(OWN + PAGE, SIZE) for _ in range(20))]
    with place.file() as file:
        for at in places:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))
    place.die()
    place.reopen()
    place.check()
    assert {at // PAGE for at in places} <= sent.pages
    assert len(sent.pages) <= len(places) + FEW


def test_threads_that_store_while_a_copy_joins(place):
    """What they persist afterwards is everywhere, be it compared before or after the store."""
    place.alone(lambda array: array.__iadd__(1))
    with rpmem.Pool.open(place.local, []) as pool:
        array = pool["a"]
        over = threading.Event()

        def work(number):
            turn = 0
            while not over.is_set():
                turn += 1
                array[number : LENGTH : 5 * PAGE] = turn % 256

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            pool.attach(place.replica)
            pool.detach(0)
        pool.attach(place.replica)
        over.set()
        for thread in threads:
            thread.join()
        pool.persist()
    place.check()


def test_words_are_never_torn_while_a_copy_can_be_restored_from(place, sent):
    """Within its epoch it counts while it is brought up to date; one of another epoch is marked."""
    subprocess.run([sys.executable, "-c", DIES, place.local, place.replica, "9"], check=True)
    place.settle()
    place.reopen()
    assert sent.relaxed == {False}
    sent.relaxed.clear()
    place.alone(lambda array: array.__iadd__(1))
    place.reopen()
    assert sent.relaxed == {False, True}  # the superblock is sent strictly


@pytest.mark.parametrize("more", [1, 1000, PAGE - 1, PAGE])
def test_the_last_page_need_not_be_whole(tmp_path, sent, more):
    node = PoolNode(tmp_path / "node")
    size = (2 << 20) + more
    memory = np.zeros(size, dtype=np.uint8)
    with rpmem.Pool.create(memory, replicas=node.spec(), parts=1):
        pass
    with rpmem.Pool.open(memory, []):
        memory[-1] = 7
    with rpmem.Pool.open(memory, node.spec()):
        pass
    assert node.contents()[: size - OWN] == memory[OWN:].tobytes()
    assert size // PAGE - (more == PAGE) in sent.pages
    assert len(sent.pages) <= 1 + FEW


def test_two_replicas_get_each_what_it_lacks(place, tmp_path, sent):
    other = PoolNode(tmp_path / "other")
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.attach(other.spec(), create=True, parts=1)
    with rpmem.Pool.open(place.local, other.spec()) as pool:
        pool["a"][7] += 1
        pool.persist(pool["a"][:8])
    sent.clear()
    with rpmem.Pool.open(place.local, [place.replica, other.spec()]):
        pass
    place.check()
    assert other.contents()[: SIZE - OWN] == place.local.read_bytes()[OWN:]
    assert len(sent.pages) <= 1 + FEW


# --- targets that cannot ----------------------------------------------------------------------


@needs_libfabric
def test_over_pmdk_s_protocol_everything_is_sent(place, sent, caplog):
    place.alone(lambda array: None)
    caplog.set_level(logging.INFO)
    place.reopen(protocol="pmdk", provider="sockets")
    assert "sending the whole pool" in caplog.text
    assert len(sent.pages) >= (SIZE - OWN) // PAGE
    place.check()


def test_to_a_target_that_takes_no_digests_everything_is_sent(place, sent, tmp_path):
    lacking = without_digests(tmp_path / "there")
    place.die(5)
    place.reopen(command=f"env PYTHONPATH={lacking.folder} {sys.executable} -P -m rpmemd")
    assert len(sent.pages) >= (SIZE - OWN) // PAGE
    place.check()


def test_without_the_part_here_everything_is_sent(place, tmp_path):
    lacking = without_digests(tmp_path / "here")
    place.alone(lambda array: array.__iadd__(1))
    code = f"import rpmem; rpmem.Pool.open({str(place.local)!r}, {place.replica!r}).close()"
    done = lacking.run("-c", code)
    assert done.returncode == 0, done.stderr
    place.check()


# --- targets that lie -------------------------------------------------------------------------


@pytest.mark.parametrize("breakage", [faulty_rpmemd.SHORT_DIGESTS, faulty_rpmemd.LONG_DIGESTS])
def test_a_wrong_number_of_digests(place, breakage):
    place.alone(lambda array: array.__iadd__(1))
    before = place.local.read_bytes()
    command = faulty_rpmemd.command(shadow=False, breakage=breakage)
    with pytest.raises(MalformedMessage, match="digests") as caught:
        place.reopen(command=command)
    assert str(caught.value).isprintable()
    assert str(place.node.directory) in str(caught.value)
    place.settle()
    # It is known for a mixture, and counts as nothing else.
    assert place.node.state()[1] == "JOINING"
    assert place.local.read_bytes() == before
    with pytest.raises(RpmemError, match="mixture"):
        rpmem.Pool.restore(place.local.with_name("again"), place.replica)
    place.reopen()
    place.check()


def test_an_attach_whose_target_answers_with_a_wrong_number(place):
    command = faulty_rpmemd.command(shadow=False, breakage=faulty_rpmemd.SHORT_DIGESTS)
    with rpmem.Pool.open(place.local, [], command=command) as pool:
        pool.persist(pool["a"])
        with pytest.raises(MalformedMessage, match="digests"):
            pool.attach(place.replica)
        assert pool.replicas == []
        pool["a"][3] += 1
        pool.persist(pool["a"])
    place.reopen()
    place.check()


def test_digests_that_are_made_up_cost_what_a_full_send_does(place, sent):
    place.die(5)
    place.reopen(
        command=faulty_rpmemd.command(shadow=False, breakage=faulty_rpmemd.MADE_UP_DIGESTS)
    )
    place.check()
    assert len(sent.pages) >= (SIZE - OWN) // PAGE


def test_a_target_that_says_nothing(place):
    place.alone(lambda array: array.__iadd__(1))
    with pytest.raises(RpmemError, match=r"within 1 s \(waiting for digests\)"):
        place.reopen(command=hanging_rpmemd.command("digests"), timeout=1.0)
    place.settle()
    assert place.node.state()[1] == "JOINING"
    place.reopen()
    place.check()
