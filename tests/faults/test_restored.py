"""Restoring from several replicas: the newest wins, and no byte that nobody wrote gets through."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import rpmem
from rpmem.base.pool_format import RECORD_OFFSET
from rpmem.epochs import codec
from rpmem.epochs.record import LARGEST_NUMBER, Mark
from rpmem.errors import (
    CatalogueCorrupt,
    CopyCorrupt,
    HeaderError,
    NotProvenNewest,
    PoolSetNotFound,
    ReplicaLost,
    RpmemError,
    SplitBrain,
    StaleReplica,
    UsageError,
)
from rpmem.session.replica import Replica
from tests.support.behind import need_digests
from tests.support.media import parts_of, record_in, wait_unlocked, write_record
from tests.support.pools import OWN, PoolNode, kill

need_digests()

SIZE = 20 << 20
LENGTH = 17 << 20
NAMES = ("one", "two", "three")


class Group:
    """A pool of one array of random bytes with some replicas, whose local copy gets lost."""

    def __init__(self, folder, count):
        self.folder = folder
        self.local = folder / "local"
        self.nodes = [PoolNode(folder / name) for name in NAMES[:count]]
        self.specs = [node.spec() for node in self.nodes]
        self.bytes = np.random.default_rng(1).integers(0, 256, LENGTH, dtype="u1")
        with rpmem.Pool.create(self.local, SIZE, self.specs, parts=1) as pool:
            array = pool.array("a", LENGTH, "u1")
            array[:] = self.bytes
            pool.persist()
            self.offset = pool.entry("a").offset
            del array

    def store(self, pool, value):
        """Make one more value durable."""
        pool["a"][:8] = value
        pool.persist(pool["a"][:8])
        self.bytes[:8] = value

    def settle(self, *nodes):
        for node in nodes or self.nodes:
            wait_unlocked(node.directory / "pool.set")

    def flip(self, number, *places):
        """Flip a bit of some bytes of a replica's pool."""
        self.settle(self.nodes[number])
        (part,) = parts_of(self.nodes[number].directory / "pool.set")
        with part.open("r+b") as file:
            for at in places:
                file.seek(at)
                (byte,) = file.read(1)
                file.seek(at)
                file.write(bytes([byte ^ 0x10]))

    def restore(self, *numbers, to="new", **how):
        specs = [self.specs[number] for number in numbers]
        return rpmem.Pool.restore(self.folder / to, specs, **how)

    def check(self, *numbers, to="new", **how):
        """Restore, compare what comes of it, and let all copies be equal after it is closed."""
        with self.restore(*numbers, to=to, **how) as pool:
            assert (pool["a"] == self.bytes).all()
            assert [each.failure for each in pool.replicas] == [None] * len(numbers)
            assert [f"{each.target} {each.pool_set}" for each in pool.replicas] == [
                self.specs[number] for number in numbers
            ]
            self.store(pool, 7)
        self.settle(*(self.nodes[number] for number in numbers))
        ours = (self.folder / to).read_bytes()[OWN:]
        for number in numbers:
            assert self.nodes[number].contents()[: len(ours)] == ours
        with rpmem.Pool.open(self.folder / to, [self.specs[number] for number in numbers]):
            pass

    def nothing(self, to="new"):
        """Check that a restore has left nothing."""
        assert [
            each.name for each in self.folder.iterdir() if each.name.startswith((to, "."))
        ] == []


@pytest.fixture
def pair(tmp_path):
    return Group(tmp_path, 2)


@pytest.fixture
def three(tmp_path):
    return Group(tmp_path, 3)


@pytest.fixture
def read(monkeypatch):
    """Return how many bytes are read from each target from now on."""
    found = {}
    before = Replica.read

    def counted(self, buffer, offset, *rest):
        name = f"{self.target} {self.pool_set}"
        found[name] = found.get(name, 0) + len(memoryview(buffer))
        before(self, buffer, offset, *rest)

    monkeypatch.setattr(Replica, "read", counted)
    return found


def corrupting(monkeypatch, group, *numbers, most=1 << 60):
    """Let a bit of what is read from some replicas flip on its way; return where."""
    flipped = []
    before = Replica.read

    def read(self, buffer, offset, *rest):
        before(self, buffer, offset, *rest)
        names = [group.specs[number] for number in numbers] if len(flipped) < most else []
        if len(buffer) > 1 << 20 and f"{self.target} {self.pool_set}" in names:
            flipped.append(offset + len(buffer) // 2)
            buffer[len(buffer) // 2] ^= 1

    monkeypatch.setattr(Replica, "read", read)
    return flipped


# --- which copies are read --------------------------------------------------------------------


def test_equal_copies_are_read_at_the_same_time(pair, read):
    pair.check(0, 1)
    assert sum(read.values()) < 1.1 * SIZE
    assert min(read.values()) > 0.4 * LENGTH


def test_the_newest_wins_and_the_others_are_brought_up_to_date(pair, read):
    with rpmem.Pool.open(pair.local, pair.specs[1]) as pool:
        pair.store(pool, 3)
    pair.check(0, 1)
    assert read[pair.specs[0]] < 1 << 20


def test_a_stale_copy_alone_is_refused(pair):
    with rpmem.Pool.open(pair.local, pair.specs[1]) as pool:
        pair.store(pool, 3)
    pair.settle()
    newest = record_in(pair.nodes[1].image())
    with pytest.raises(NotProvenNewest) as caught:
        pair.restore(0)
    assert newest.copy.hex() in caught.value.hint
    pair.nothing()
    with pair.restore(0, lost=newest.copy.hex().upper()) as pool:
        assert pool["a"][0] != 3
    (pair.folder / "new").unlink()
    with pytest.raises(SplitBrain):
        pair.restore(0, 1)


def test_a_stale_copy_that_another_one_exposes_is_never_read(pair):
    """The newest copy is a mixture; the older one is whole."""
    with rpmem.Pool.open(pair.local, pair.specs[1]) as pool:
        pair.store(pool, 3)
    pair.settle()
    record = record_in(pair.nodes[1].image())
    write_record(pair.nodes[1].directory / "pool.set", record.replaced(mark=Mark.JOINING))
    for lost in ((), "local:/x y.set"):
        with pytest.raises(StaleReplica, match="mixture"):
            pair.restore(0, 1, lost=lost)
    pair.nothing()


def test_a_replica_that_is_gone_has_to_be_named(pair):
    parts = parts_of(pair.nodes[1].directory / "pool.set")
    pair.settle()
    parts[0].unlink()
    with pytest.raises(NotProvenNewest, match=r"not read: .*two") as caught:
        pair.restore(0, 1)
    assert isinstance(caught.value.__cause__, RpmemError)
    with pytest.raises(NotProvenNewest):
        pair.restore(0)
    with pair.restore(0, 1, lost=pair.specs[1]) as pool:
        assert len(pool.replicas) == 1
        assert (pool["a"] == pair.bytes).all()


def test_a_stranger_that_is_gone_has_to_be_named(pair):
    """All members are there, and yet nobody goes on with fewer replicas than were named."""
    specs = [*pair.specs, f"{pair.nodes[0].target} none.set"]
    with pytest.raises(PoolSetNotFound):
        rpmem.Pool.restore(pair.folder / "new", specs)
    pair.nothing()
    with rpmem.Pool.restore(pair.folder / "new", specs, lost=specs[2]) as pool:
        assert len(pool.replicas) == 2


def test_a_replica_that_is_there_does_not_stand_for_one_that_is_lost(three):
    with pytest.raises(NotProvenNewest):
        three.restore(0, 1, lost=three.specs[1])
    three.nothing()


def test_what_makes_no_sense_is_refused(pair, tmp_path):
    copy = record_in(pair.nodes[0].image()).copy
    with pytest.raises(UsageError, match="named as lost"):
        pair.restore(0, 1, lost=copy.hex())
    with pytest.raises(UsageError, match="Name one"):
        pair.restore()
    with pytest.raises(UsageError, match="twice"):
        pair.restore(0, 0)
    (tmp_path / "stranger").mkdir()
    stranger = Group(tmp_path / "stranger", 1)
    with pytest.raises(HeaderError, match="another pool"):
        rpmem.Pool.restore(tmp_path / "new", [*pair.specs, *stranger.specs])
    pair.nothing()


def test_a_pair_is_one_replica(pair):
    target, name = pair.nodes[0].target, "pool.set"
    with rpmem.Pool.restore(pair.folder / "new", (target, name), lost=[pair.specs[1]]) as pool:
        assert len(pool.replicas) == 1
    (pair.folder / "new").unlink()
    with rpmem.Pool.restore(pair.folder / "new", tuple(pair.specs)) as pool:
        assert len(pool.replicas) == 2


@pytest.mark.parametrize("prepared", [False, True])
def test_a_target_that_records_absurd_epochs(pair, prepared):
    pair.settle()
    node = pair.nodes[0]
    record = record_in(node.image())
    epoch = record.epoch.replaced(number=LARGEST_NUMBER, history=(record.epoch.stamp,))
    changed = {"prepared": epoch.replaced(identity=bytes(16))} if prepared else {"epoch": epoch}
    write_record(node.directory / "pool.set", record.replaced(**changed))
    with pytest.raises(CatalogueCorrupt, match="no epoch can come after"):
        pair.restore(0, 1)
    pair.nothing()
    pair.check(1, lost=pair.specs[0])


# --- bytes that change ------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(0,), (0, 1)])
def test_a_bit_that_flips_on_the_wire(pair, monkeypatch, numbers):
    """The other copy is read instead, and nobody goes on with this one in silence."""
    flipped = corrupting(monkeypatch, pair, *numbers)
    if len(numbers) == 1:
        with pair.restore(0, 1) as pool:
            assert (pool["a"] == pair.bytes).all()
            assert flipped
            with pytest.raises(CopyCorrupt):
                pool.persist(pool["a"][:8])
            pool.detach(0)
            pair.store(pool, 9)
        return
    with pytest.raises(CopyCorrupt, match="not what the copy holds"):
        pair.restore(0, 1)
    pair.nothing()


def test_a_bit_that_flips_on_the_wire_from_the_only_copy(pair, monkeypatch):
    with monkeypatch.context() as patch:
        corrupting(patch, pair, 0, most=1)
        with pytest.raises(CopyCorrupt) as caught:
            pair.restore(0, lost=pair.specs[1])
    assert caught.value.where == pair.specs[0]
    pair.nothing()
    pair.check(0, lost=pair.specs[1])


def test_a_flipped_bit_of_one_of_three_is_outvoted_and_mended(three):
    places = [three.offset + 5, three.offset + LENGTH - 1, OWN + 10, SIZE // 2]
    three.flip(0, *places[:2])
    three.flip(1, places[3])
    three.check(0, 1, 2)


def test_a_page_that_is_read_again_is_looked_at_again(three, monkeypatch):
    """It was read from a copy that has rotted, and flips on its way from the next."""
    three.flip(0, *range(three.offset + 5, three.offset + LENGTH, 1 << 20))
    before, flipped = Replica.read, []

    def read(self, buffer, offset, *rest):
        before(self, buffer, offset, *rest)
        inside = three.offset < offset < three.offset + LENGTH
        if len(buffer) == 4096 and inside and not flipped:
            flipped.append(f"{self.target} {self.pool_set}")
            buffer[7] ^= 1

    monkeypatch.setattr(Replica, "read", read)
    with three.restore(0, 1, 2) as pool:
        assert (pool["a"] == three.bytes).all()
        assert flipped[0] in three.specs[1:]
        lost = [f"{each.target} {each.pool_set}" for each in pool.replicas if each.failure]
        assert lost == flipped
        pool.detach(three.specs.index(flipped[0]))
        three.store(pool, 9)


def test_flipped_bits_of_two_copies_are_refused(pair):
    """Nobody knows which of them is right, whichever is offered first."""
    pair.flip(0, pair.offset + 5)
    for numbers in ((0, 1), (1, 0)):
        with pytest.raises(
            CopyCorrupt, match=r"1 pages, the first at .*'a'.*nobody knows"
        ) as caught:
            pair.restore(*numbers)
        assert "lost=" in caught.value.hint
        pair.nothing()
    pair.check(1, lost=pair.specs[0])


@pytest.mark.parametrize("what", ["superblock", "root"])
def test_a_damaged_catalogue_is_offered_first(pair, what):
    """Its checksums tell which of two copies is right; it is sent the good one."""
    at = {"superblock": OWN + 20, "root": OWN + 4096 + 20}[what]
    pair.flip(0, at)
    pair.check(0, 1)


def test_a_damaged_record_is_offered_first(pair):
    """Nobody knows whether it has more; said to be lost, it is left out."""
    pair.flip(0, RECORD_OFFSET + codec.SLOT_OFFSETS[1] + 40)
    with pytest.raises(NotProvenNewest, match="record of the copy is damaged"):
        pair.restore(0, 1)
    with pair.restore(0, 1, lost=pair.specs[0]) as pool:
        assert (pool["a"] == pair.bytes).all()
        assert len(pool.replicas) == 1


# --- writers that died ------------------------------------------------------------------------

DIES = """
import os, sys, rpmem
pool = rpmem.Pool.open(sys.argv[1], sys.argv[2:])
print("ready", flush=True)
a = pool["a"]
value = 10
while True:
    value = 10 + (value + 1) % 200
    a[: 1 << 20] = value
    pool.persist(a[: 1 << 20])
    print(value, flush=True)
"""


@pytest.mark.parametrize("count", [2, 3])
def test_a_writer_that_died(tmp_path, count):
    """Its copies may differ in what was not acknowledged, and one of them is taken."""
    group, chance = Group(tmp_path, count), random.Random(5)
    for _ in range(3):
        words = [sys.executable, "-c", DIES, str(group.local), *group.specs]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.random() * 0.3)
        child.send_signal(signal.SIGKILL)
        told = [int(line) for line in child.stdout.read().split()]
        child.wait()
        group.settle()
        group.local.unlink()
        with rpmem.Pool.restore(group.local, group.specs) as pool:
            assert (pool["a"][1 << 20 :] == group.bytes[1 << 20 :]).all()
            values = set(np.unique(pool["a"][: 1 << 20]).tolist())
            if told:
                assert values <= {told[-1], 10 + (told[-1] + 1) % 200}
        group.settle()
        ours = group.local.read_bytes()[OWN:]
        for node in group.nodes:
            assert node.contents()[: len(ours)] == ours


def test_copies_of_a_writer_that_died_differ(pair, monkeypatch):
    """What differs is taken from one of them as a whole, and the other one is sent it."""
    for node in pair.nodes:
        record = record_in(node.image())
        write_record(node.directory / "pool.set", record.replaced(mark=Mark.BEGUN))
    first, second = pair.offset + 5, pair.offset + LENGTH - 1
    pair.flip(0, first)
    pair.flip(1, second)
    pair.bytes[5] ^= 0x10
    pair.check(0, 1)


# --- losses and kills -------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(0,), (0, 1)])
def test_replicas_that_are_lost_while_they_are_read(pair, monkeypatch, numbers):
    before, calls = Replica.read, []

    def cut(self, buffer, offset, *rest):
        before(self, buffer, offset, *rest)
        calls.append(offset)
        if len(buffer) > 1 << 20 and f"{self.target} {self.pool_set}" in [
            pair.specs[number] for number in numbers
        ]:
            kill(self)

    with monkeypatch.context() as patch:
        patch.setattr(Replica, "read", cut)
        if len(numbers) == 2:
            with pytest.raises(ReplicaLost):
                pair.restore(0, 1)
        else:
            with pair.restore(0, 1) as pool:
                assert (pool["a"] == pair.bytes).all()
                with pytest.raises(ReplicaLost):
                    pool.persist(pool["a"][:8])
                pool.detach(0)
                pair.store(pool, 5)
                pool.attach(pair.specs[0])
            return
    pair.nothing()
    pair.settle()
    pair.check(0, 1)


RESTORES = """
import sys, rpmem
print("ready", flush=True)
rpmem.Pool.restore(sys.argv[1], sys.argv[2:]).close()
"""


def test_a_restore_that_is_killed_at_any_moment(three):
    """Nothing counts before it is complete, and another attempt meets nothing of it."""
    three.flip(0, three.offset + 5)  # so that it is brought up to date, too
    chance, new = random.Random(6), three.folder / "new"
    done = 0
    for _ in range(25):
        words = [sys.executable, "-c", RESTORES, str(new), *three.specs]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        time.sleep(chance.random() * 0.8)
        child.kill()
        done += child.wait() == 0
        three.settle()
        if new.exists():
            with rpmem.Pool.open(new, three.specs) as pool:
                assert (pool["a"] == three.bytes).all()
            three.settle()
            new.unlink()
    assert done < 25
    three.check(0, 1, 2)


def test_what_progress_raises_undoes_it(pair):
    class Stop(Exception):
        pass

    def stop(done_bytes, total_bytes, what):
        if done_bytes > 1 << 20:
            raise Stop

    with pytest.raises(Stop):
        pair.restore(0, 1, progress=stop)
    pair.nothing()
    seen = []
    pair.restore(0, 1, progress=lambda *report: seen.append(report)).close()
    assert seen[0][0] == 0
    assert seen[-1][:2] == (SIZE - OWN, SIZE - OWN)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
