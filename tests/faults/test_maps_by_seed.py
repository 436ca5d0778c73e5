"""Copies that go and come back at random: equal whenever they join, and apart in maps only."""

from __future__ import annotations

import random

import numpy as np
import pytest

import rpmem
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.errors import PoolFull, RpmemError
from tests.support.mapped import mapped
from tests.support.media import PoolImage, image_of, wait_unlocked
from tests.support.pools import PoolNode
from tests.support.seeds import first

SIZE = 4 << 20
LENGTH = 3 << 20
PAGE = 4096
SEEDS = range(first(1), first(1) + 4)
TURNS = 40
NAMES = ("one", "two")


class World:
    """A pool, its replicas, and which bytes were stored and never persisted."""

    def __init__(self, folder, seed):
        self.chance = random.Random(seed)
        self.local = folder / "local"
        self.nodes = {name: PoolNode(folder / name) for name in NAMES}
        self.loose = np.zeros(LENGTH, dtype=bool)
        self.attached: list[str] = []
        self.believed = 0
        self.pool = rpmem.Pool.create(
            self.local, SIZE, [node.spec() for node in self.nodes.values()], parts=1
        )
        self.attached = list(NAMES)
        self.pool.array("a", LENGTH, "u1")
        self.offset = self.pool.entry("a").offset

    # --- what may happen ------------------------------------------------------------------

    def store(self):
        """Store to some pages."""
        array = self.pool["a"]
        for _ in range(self.chance.randrange(1, 6)):
            at = self.chance.randrange(LENGTH)
            end = min(LENGTH, at + self.chance.choice((1, 8, PAGE, 3 * PAGE, 1 << 20)))
            array[at:end] = self.chance.randrange(256)
            self.loose[at:end] = True

    def persist(self):
        """Make something durable, by any call."""
        array = self.pool["a"]
        at = self.chance.randrange(LENGTH)
        end = self.chance.randrange(at, LENGTH) + 1
        if self.chance.random() < 0.7:
            end = min(end, at + 5 * PAGE)
        part = array[at:end]
        how = self.chance.choice(("all", "named", "narrow", "many", "flush", "drain", "deep"))
        calls = {
            "all": self.pool.persist,
            "named": lambda: self.pool.persist(part),
            "narrow": lambda: self.pool.persist(part, narrow=True),
            "many": lambda: self.pool.persist_many([part[:1], part]),
            "flush": lambda: self.pool.flush(part),
            "drain": self.pool.drain,
            "deep": lambda: self.pool.deep_persist(part),
        }
        try:
            calls[how]()
        except RpmemError:
            assert any(each.group.failed for each in self.pool.replicas)
        # Where a replica was lost, the local copy and the others have it all the same.
        if how == "all":
            self.loose[:] = False
        elif how != "drain":
            self.loose[at:end] = False

    def change_names(self):
        """Make or remove an array, or change attributes."""
        name = f"b{self.chance.randrange(4)}"
        try:
            if name in self.pool and self.chance.random() < 0.5:
                del self.pool[name]
            elif name not in self.pool:
                self.pool.array(name, self.chance.choice((10, 5000, 60_000)), "u1")
            else:
                self.pool.attrs(name)["k"] = self.chance.randrange(1000)
        except PoolFull:
            pass
        except RpmemError:
            assert any(each.group.failed for each in self.pool.replicas)

    def lose(self):
        """Lose a replica: what is made durable from now on, it does not get."""
        if self.attached:
            self.chance.choice(self.pool.replicas).give_up("the test wants it so")

    def detach(self):
        """Go on without a replica, be it lost or not; a lost one first."""
        lost = [at for at, each in enumerate(self.pool.replicas) if each.failure is not None]
        if not self.attached:
            return
        at = lost[0] if lost else self.chance.randrange(len(self.attached))
        name = self.attached[at]
        try:
            self.pool.detach(at)
        except RpmemError:
            assert len(lost) > 1
        self.attached.remove(name)
        self.wait(name)

    def attach(self):
        """Let a replica come back."""
        away = [name for name in NAMES if name not in self.attached]
        if not away or any(each.failure is not None for each in self.pool.replicas):
            return
        name = self.chance.choice(away)
        self.pool.attach(self.nodes[name].spec())
        self.attached.append(name)
        self.check(name)

    def close(self):
        """Close the pool, as it should be or not, and open it with any of the replicas."""
        clean = self.chance.random() < 0.8
        if clean:
            self.close_pool()
        else:
            self.pool._copies.drop()
            self.pool._tracking.close()
            self.pool = None
        for name in NAMES:
            self.wait(name)
        if clean:
            self.check_maps()
        self.loose[:] = False
        self.attached = [name for name in NAMES if self.chance.random() < 0.4]
        self.pool = rpmem.Pool.open(
            self.local,
            [self.nodes[name].spec() for name in self.attached],
            tracking=self.chance.choice(("auto", "auto", "digest", "off")),
        )
        for name in self.attached:
            self.check(name)

    def close_pool(self):
        """Close it, perhaps while there are views."""
        if self.chance.random() < 0.3:
            view = self.pool["a"]
            with self.pool:
                pass
            view[:] = 99
            del view
        else:
            self.pool.close()

    # --- what has to hold -----------------------------------------------------------------

    def wait(self, name):
        """Wait until nobody has the files of a replica."""
        wait_unlocked(self.nodes[name].directory / "pool.set")

    def check(self, name):
        """Compare a copy that has joined in everything that was persisted."""
        with memoryview(self.pool._copies.local.region) as view:
            mine = np.frombuffer(view, np.uint8, SIZE).copy()
        theirs = np.frombuffer(self.nodes[name].image(), np.uint8, SIZE)
        differ = mine != theirs
        differ[:POOL_FLOOR] = False
        differ[self.offset : self.offset + LENGTH] &= ~self.loose
        assert not differ.any(), np.unique(np.flatnonzero(differ) // PAGE)

    def check_maps(self):
        """Each copy is equal, or apart in pages of its map, or known for one that is not known."""
        here = PoolImage.parse(image_of(self.local))
        for name in NAMES:
            there = PoolImage.parse(self.nodes[name].image())
            pages = mapped(here, there.record)
            if pages is None:
                continue
            mine, theirs = (
                np.frombuffer(each.image, np.uint8, SIZE).reshape(-1, PAGE)
                for each in (here, there)
            )
            apart = set(np.flatnonzero((mine != theirs).any(axis=1)).tolist())
            apart -= set(range(POOL_FLOOR // PAGE))
            assert apart <= pages, apart - pages
            self.believed += 1


ACTS = {
    World.store: 30,
    World.persist: 30,
    World.change_names: 8,
    World.lose: 5,
    World.detach: 10,
    World.attach: 15,
    World.close: 12,
}


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_that_go_and_come_back(tmp_path, seed):
    world = World(tmp_path, seed)
    try:
        for _ in range(TURNS):
            (act,) = world.chance.choices(list(ACTS), list(ACTS.values()))
            act(world)
        world.close()
        assert world.believed
    finally:
        if world.pool is not None:
            world.pool._copies.drop()
            world.pool._tracking.close()
