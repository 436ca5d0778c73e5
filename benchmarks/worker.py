"""The process in which rpmem itself is measured; started by its two backends.

Ops: persist, persist-relaxed, persist-array (an ndarray instead of offset and length),
flush-drain (DEPTH flushes, one drain), persist-many (DEPTH ranges at once), persist-each (DEPTH
calls), read, deep; create, open and remove (a whole life cycle each; the named call is timed);
resident (not a time: resident bytes besides the pool, here and in the target).
"""

from __future__ import annotations

import argparse
import os
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import rpmem
from benchmarks.jobs import Call, Order, Timed, clock_cost, measure, serve
from benchmarks.jobs import perform as perform_calls

HEADER = 4096
SIGNATURE = b"BENCHPY1"


class LowTier:
    """A Replica over anonymous memory."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.memory = np.zeros(options.pool, dtype=np.uint8)
        self.memory[:] = 0x5A
        self.start = HEADER
        self.replica: rpmem.Replica | None = None

    def _keywords(self) -> dict:
        return {"step": self.options.step, "command": self.options.command, "timeout": 60.0}

    def create(self) -> None:
        self.replica = rpmem.create(
            self.options.targets[0],
            "bench.set",
            self.memory,
            self.options.lanes,
            rpmem.PoolAttributes(signature=SIGNATURE),
            parts=self.options.parts,
            **self._keywords(),
        )

    def open(self) -> None:
        self.replica = rpmem.open(
            self.options.targets[0],
            "bench.set",
            self.memory,
            self.options.lanes,
            **self._keywords(),
        )

    def close(self, remove: bool = False) -> None:
        if self.replica is not None:
            self.replica.close(remove=remove)
            self.replica = None

    def remove(self) -> None:
        rpmem.remove(
            self.options.targets[0],
            "bench.set",
            pool_set=True,
            command=self.options.command,
        )

    def hello(self) -> dict:
        replica = self.replica
        assert replica is not None
        # Python's share of a call: an empty range posts nothing.
        empty = measure(replica.persist, [(self.start, 0)], 1000)
        return {
            "call_ns": sorted(empty)[500] - clock_cost(),
            "step": replica.step,
            "medium": replica.medium,
            "level": replica.level,
            "provider": replica.provider,
            "lanes": replica.nlanes,
        }

    def calls(self, order: Order) -> list[Call]:
        assert self.replica is not None
        return [self._call(order, order.places(t, self.start)) for t in range(order.threads)]

    def _call(self, order: Order, places: list[int]) -> Call:
        replica, size, depth = self.replica, order.size, order.depth
        assert replica is not None
        pairs = [(place, size) for place in places]
        if order.op == "persist":
            return replica.persist, pairs
        if order.op == "persist-relaxed":
            return replica.persist, [(place, size, None, True) for place in places]
        if order.op == "deep":
            return replica.deep_persist, pairs
        if order.op == "read":
            landing = np.empty(size, dtype=np.uint8)
            return replica.read, [(landing, place) for place in places]
        if order.op == "flush-drain":
            batch = [[place + i * size for i in range(depth)] for place in places[:1]]

            def flush_drain(offsets: list[int]) -> None:
                for offset in offsets:
                    replica.flush(offset, size)
                replica.drain()

            return flush_drain, [(offsets,) for offsets in batch]
        return scattered(order, self.start, replica.persist, replica.persist_many)


class PoolTier:
    """A Pool over a file on tmpfs, with one array."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.path = Path(os.environ["RPMEM_BENCH_PLACE"]) / "pool"
        self.pool: rpmem.Pool | None = None

    def create(self) -> None:
        replicas = [(target, f"bench{i}.set") for i, target in enumerate(self.options.targets)]
        self.pool = rpmem.Pool.create(
            self.path,
            self.options.pool,
            replicas,
            parts=1,
            nlanes=self.options.lanes,
            step=self.options.step,
            command=self.options.command,
            timeout=60.0,
        )
        room = self.options.pool - (4 << 20)
        self.array = self.pool.array("bench", (room,), "u1")
        self.start = self.pool.entry("bench").offset

    def close(self, remove: bool = False) -> None:
        if self.pool is not None:
            del self.array
            self.pool.close()
            self.pool = None

    def hello(self) -> dict:
        return {"replicas": len(self.options.targets), "start": self.start}

    def calls(self, order: Order) -> list[Call]:
        return [self._call(order, order.places(t, self.start)) for t in range(order.threads)]

    def _call(self, order: Order, places: list[int]) -> Call:
        pool, size, depth = self.pool, order.size, order.depth
        assert pool is not None
        views = [(self.array[p - self.start : p - self.start + size],) for p in places]
        pairs = [((place, size),) for place in places]
        if order.op == "persist":
            return pool.persist, pairs
        if order.op == "persist-array":
            return pool.persist, views
        if order.op == "persist-relaxed":
            return lambda pair: pool.persist(pair, relaxed=True), pairs
        if order.op == "flush-drain":
            flushes = [(places[0] + i * size, size) for i in range(depth)]

            def flush_drain() -> None:
                for pair in flushes:
                    pool.flush(pair)
                pool.drain()

            return flush_drain, [()]
        return scattered(
            order, self.start, lambda offset, n: pool.persist((offset, n)), pool.persist_many
        )


def scattered(
    order: Order,
    start: int,
    persist: Callable[[int, int], object],
    persist_many: Callable[..., object],
) -> Call:
    """Return the call for DEPTH ranges with gaps between them, in one call or in DEPTH calls."""
    size = order.size
    ranges = np.empty((order.depth, 2), dtype=np.uint64)
    ranges[:, 0] = start + np.arange(order.depth, dtype=np.uint64) * (2 * size)
    ranges[:, 1] = size
    if order.op == "persist-many":
        return persist_many, [(ranges,)]
    if order.op == "persist-each":
        pairs = [(int(offset), size) for offset in ranges[:, 0]]

        def one_by_one() -> None:
            for offset, length in pairs:
                persist(offset, length)

        return one_by_one, [()]
    raise SystemExit(f"no such op: {order.op}")


def life_cycle(tier: LowTier, order: Order) -> Timed:
    """Run whole life cycles, and time the call named by the op."""
    tier.close(remove=True)
    every = array("Q")
    begun = time.perf_counter_ns()

    def timed(call: Callable[[], None], what: str) -> None:
        start = time.perf_counter_ns()
        call()
        if what == order.op:
            every.append(time.perf_counter_ns() - start)

    for _ in range(order.warmup + order.count):
        timed(tier.create, "create")
        tier.close()
        if order.op == "open":
            timed(tier.open, "open")
            tier.close()
        timed(tier.remove, "remove")
    return Timed(every[order.warmup :], time.perf_counter_ns() - begun)


def main(arguments: Sequence[str] | None = None) -> None:
    """Take jobs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tier", choices=("low", "pool"), required=True)
    parser.add_argument("--pool", type=int, required=True)
    parser.add_argument("--lanes", type=int, required=True)
    parser.add_argument("--step", default="auto")
    parser.add_argument("--command")
    parser.add_argument("--parts", type=int, default=1, help="0: the pool set is there already")
    parser.add_argument("--targets", nargs="+", required=True)
    options = parser.parse_args(arguments)
    tier = LowTier(options) if options.tier == "low" else PoolTier(options)
    tier.create()

    def handle(order: Order) -> Timed:
        if order.op in ("create", "open", "remove"):
            return life_cycle(tier, order)
        return perform_calls(order, tier.calls(order))

    serve({**tier.hello(), "clock_ns": clock_cost()}, handle)
    tier.close(remove=True)


if __name__ == "__main__":
    main()
