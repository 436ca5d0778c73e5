"""A session over the fake fabric, drawn from a seed, and the checks of its results.

One thread runs everything: the real engine and the real steps on one side, the real service on the
other, and between them a fabric that delays, reorders as far as allowed, repeats answers, and has
one fault. Acknowledged data has to be in the target's durable image, at that moment and until it is
written again; a fault has to be reported; and without a fault there must be no error. ``python -m
tests.support.simulation --seed N`` runs one session, ``--count M`` the next M.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np

from rpmem._core import Replicator
from rpmem.errors import RegistrationFailed
from rpmem.memory.changes.lender import Lender
from rpmem.memory.region import Region
from rpmem.wire.lane import (
    LANE_EXPIRED,
    LANE_GARBLED,
    LANE_INTERRUPTED,
    LANE_LOST,
    LANE_REFUSED,
)
from rpmemd import lane_server
from rpmemd.lane_server import LaneServer
from tests.support.compiled import compiled
from tests.support.simulated_plan import BREACHES, FLOOR, SIZE, Plan
from tests.support.simulated_replica import Broken, Lost, Replica, outside

fabric = compiled("_fake_fabric")
fake = compiled("_fake_world")
traffic = compiled("_fake_traffic")
settle = traffic.settle

#: Virtual seconds without progress until a replica is given up.
PATIENCE_S = 0.3
#: What the first call that notices may say of what went wrong. Whoever is told first that the
#: session has ended sees a broken connection.
_SAID = {
    fake.FAULT_CUT: {LANE_LOST},
    fake.FAULT_CUT_ALL: {LANE_LOST},
    fake.FAULT_SILENCE: {LANE_EXPIRED},
    fake.FAULT_DROP_MESSAGE: {LANE_REFUSED, LANE_EXPIRED, LANE_LOST},
    fake.FAULT_DROP_REPLY: {LANE_EXPIRED},
    fake.FAULT_DOUBLE_MESSAGE: {LANE_REFUSED, LANE_LOST},
    fake.FAULT_GARBLE: {LANE_GARBLED},
    fake.FAULT_REFUSE: {LANE_REFUSED, LANE_LOST},
    fake.FAULT_INTERRUPT: set(),
    fake.FAULT_REFUSE_POST: {LANE_LOST},
    fake.FAULT_SILENT_INTERRUPT: {LANE_EXPIRED, LANE_INTERRUPTED},
}


class Parked:
    """A thread that never runs by itself: its work is done where its turn comes."""

    def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...], **_: Any) -> None:
        self.work = lambda: target(*args)

    def start(self) -> None:
        """Do nothing yet."""

    def join(self) -> None:
        """There is nothing to wait for."""


class Session:
    """The calls of one seed, and the checks after each."""

    def __init__(self, plan: Plan, world: Any) -> None:
        self.plan = plan
        self.world = world
        self.counts: Counter[str] = Counter()
        self.calling = False
        self.said = False
        # What a READ that was given up may still write to.
        self.kept: list[bytearray] = []
        self.flushed: list[tuple[int, int]] = []
        self.here = Region.anonymous(SIZE)
        with memoryview(self.here) as view:
            view[:] = plan.random.randbytes(SIZE)
        self.replicas: list[Replica] = []
        self.core: Any = None

    def open(self) -> None:
        """Connect every replica."""
        for number in range(self.plan.replicas):
            self.replicas.append(Replica(self.plan, self.world, self.here, number))
        for replica in self.replicas:
            replica.connect()
        self.core = Replicator(
            self.here,
            [replica.group for replica in self.replicas],
            local=False,
            floor=FLOOR,
            spin_s=self.plan.spin_s,
            timeout_s=PATIENCE_S,
        )

    def close(self) -> None:
        """End everything."""
        if self.core is not None:
            self.core.close("the session is over")
        for replica in self.replicas:
            replica.close()

    def run(self) -> None:
        """Make the calls."""
        for _ in range(self.plan.calls):
            self._step()
        self._call("drain", self._drain, self.flushed)
        settle(self.world)
        self._check()
        self.counts.update(posts=self.world.posts)
        for replica in self.replicas:
            lanes = replica.lanes.lanes
            self.counts.update(f"lane {lane.fault[0]}" for lane in lanes if lane.fault[0])
            self.counts.update(f"went wrong {number}" for number in replica.target.faults)

    def _step(self) -> None:
        draw = self.plan.random
        kind = draw.choice(self.plan.kinds)
        if kind == "wait":
            settle(self.world, draw.choice((1000, 100_000, 5_000_000)))
        elif kind == "drain":
            self._call("drain", self._drain, self.flushed)
        elif kind == "read":
            self._read()
        else:
            self._write(kind)
        self._check()

    def _ranges(self, count: int, longest: int) -> list[tuple[int, int]]:
        draw = self.plan.random
        found = []
        for _ in range(count):
            length = draw.choice((8, 8, 1 + draw.randrange(64), 1 + draw.randrange(longest)))
            at = FLOOR + draw.randrange(SIZE - FLOOR - length + 1)
            found.append((at & ~7, 8) if length == 8 else (at, length))
        return found

    def _write(self, kind: str) -> None:
        draw = self.plan.random
        relaxed = draw.random() < 0.5
        many = kind == "many" or (kind == "flush" and draw.random() < 0.3)
        ranges = self._ranges(draw.randrange(2, 8) if many else 1, 3000 if not many else 300)
        if kind == "put":
            ranges = [(ranges[0][0] & ~7, 8)]
        if draw.random() < 0.5 and any(
            _meet(one, other) for one in ranges for other in self.flushed
        ):
            self._call("drain", self._drain, self.flushed)
        lane = self._lane()
        # What changes after its flush is what the drain no longer answers for.
        self.flushed = [rest for one in self.flushed for rest in _without(one, ranges)]
        with memoryview(self.here) as view:
            for at, length in ranges:
                view[at : at + length] = draw.randbytes(length)
        if kind in ("persist", "many") and self.plan.lends and lane is None:
            self._lend(kind, ranges)
        elif kind == "flush":
            for one in ranges:
                if self._call(
                    kind,
                    lambda one=one: self.core.flush(one, relaxed=relaxed, lane=lane),
                    [one],
                    durable=False,
                ):
                    self.flushed.append(one)
        elif kind == "many":
            self._call(
                kind, lambda: self.core.persist_many(ranges, relaxed=relaxed, lane=lane), ranges
            )
        elif kind == "deep":
            self._call(kind, lambda: self.core.deep_persist(ranges[0], lane=lane), ranges)
        elif kind == "put":
            at = ranges[0][0]
            with memoryview(self.here) as view:
                word = bytes(view[at : at + 8])
            self._call(kind, lambda: self.core.put(at, word), ranges)
        else:
            relaxed = kind == "relaxed"
            self._call(
                kind, lambda: self.core.persist(ranges[0], relaxed=relaxed, lane=lane), ranges
            )

    def _lend(self, kind: str, ranges: list[tuple[int, int]]) -> None:
        """Send from another place, which has other uses however that ends."""
        place = bytearray(self.here)
        lender = Lender(place, 0)
        self._call(
            kind, lambda: self.core.persist_lent(np.array(ranges, np.uint64), lender), ranges
        )
        self.counts["lent"] += 1
        place[:] = bytes(len(place))

    def _lane(self) -> int | None:
        """A certain lane, or any."""
        draw = self.plan.random
        return draw.randrange(self.plan.lanes) if draw.random() < 0.7 else None

    def _drain(self) -> None:
        self.core.drain()

    def _read(self) -> None:
        draw = self.plan.random
        which = draw.randrange(len(self.replicas))
        replica = self.replicas[which]
        ((at, length),) = self._ranges(1, 9000)
        into = bytearray(length)
        lane = self._lane()
        register = replica.lanes.register if draw.random() < 0.5 else None
        if not self._call(
            "read",
            lambda: self.core.read(which, into, at, lane=lane, register=register),
            [],
            only=replica,
        ):
            if traffic.reads_under_way(self.world, into):
                self.counts["reads given up"] += 1
                self._is_kept(into)
            return
        for index, value in enumerate(into, at):
            if value != replica.acked[index] and not replica.may_have(index, value):
                raise Broken(f"byte {index} was read as {value}, not {replica.acked[index]}")

    def _is_kept(self, into: bytearray) -> None:
        """What a READ may still write to must not be given back before the lanes are closed."""
        self.kept.append(into)
        try:
            into.append(0)
        except BufferError:
            return
        raise Broken("the memory of a read was given back, and may still be written to")

    def _call(
        self,
        kind: str,
        call: Callable[[], None],
        ranges: list[tuple[int, int]],
        *,
        durable: bool = True,
        only: Replica | None = None,
    ) -> bool:
        """Make a call, note what it promised, and whether it was right to fail."""
        up = [replica for replica in self.replicas if not replica.group.failed]
        lost = [replica for replica in self.replicas if replica.group.failed]
        for replica in self.replicas:
            # What is still on its way to one that is lost may carry them too.
            replica.sent(ranges)
        begun = self.world.clock_ns
        self.counts["calls"] += 1
        try:
            self.calling = True
            call()
            self.calling = False
        except (Lost, KeyboardInterrupt) as error:
            self.calling = False
            went_well = False
            self._failed(kind, error)
            if isinstance(error, KeyboardInterrupt):
                return False
            still = [replica for replica in up if not replica.group.failed]
        else:
            if (lost and only is None) or only in lost:
                raise Broken(f"{kind} went well although a replica is lost")
            went_well = True
            still = up
        took = self.world.clock_ns - begun
        if took > (PATIENCE_S * 4 + 0.5) * 1e9:
            raise Broken(f"{kind} took {took / 1e9:.3f} s")
        if durable and only is None:
            for replica in still:
                replica.acknowledged(ranges)
            if kind == "drain":
                self.flushed = []
        return went_well

    def _failed(self, kind: str, error: BaseException) -> None:
        """A call failed: something must have gone wrong before, and this is what to say of it."""
        lost = [replica for replica in self.replicas if replica.group.failed]
        for replica in lost:
            if not any(_SAID[fault] for fault in replica.target.faults):
                raise Broken(f"{kind}: {error!r}, although nothing has gone wrong")
        if isinstance(error, KeyboardInterrupt):
            self.counts["interrupted"] += 1
            self.said = self.said or bool(lost)
            return
        self.counts[f"fault {error.fault}"] += 1
        if not lost:
            raise Broken(f"{kind}: {error}, and no replica is lost")
        said = set().union(*(_SAID[fault] for each in lost for fault in each.target.faults))
        if error.fault not in said:
            raise Broken(f"{kind}: {error}, after {[each.target.faults for each in lost]}")
        self.counts["told again"] += self.said
        self.said = True

    def _check(self) -> None:
        if self.world.complaint is not None:
            raise Broken(self.world.complaint)
        for replica in self.replicas:
            replica.check()


def _without(one: tuple[int, int], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what is left of a range without some others."""
    pieces = [(one[0], bytes(one[1]))]
    for at, length in others:
        pieces = [
            rest for offset, data in pieces for rest in outside(offset, data, at, at + length)
        ]
    return [(offset, len(data)) for offset, data in pieces]


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < sum(other) and other[0] < sum(one)


def run(seed: int, breach: str = "") -> Counter[str]:
    """Run the session of a seed; return what happened, counted.

    Parameters
    ----------
    seed : int
    breach : str
        One of `BREACHES`, which the model has to notice sooner or later.

    Raises
    ------
    Broken
        Something that has to be true was not.
    """
    plan = Plan(seed, breach)
    with ExitStack() as stack:
        world = stack.enter_context(fake.World(seed, **plan.world))
        stack.enter_context(patch("rpmem.fabric.providers.load", lambda provider="": fabric))
        stack.enter_context(patch.object(lane_server.threading, "Thread", Parked))
        if plan.stages:
            stack.enter_context(patch.object(LaneServer, "_pool_or_staging", _staged))
        if breach == "skips flush":
            broken = compiled("_broken_service").SkipsFlush
            stack.enter_context(patch.object(LaneServer, "service_class", broken))
        session = Session(plan, world)
        earlier = signal.signal(signal.SIGINT, lambda *_: _interrupt(session))
        try:
            session.open()
            session.run()
        finally:
            session.close()
            signal.signal(signal.SIGINT, earlier)
        return session.counts


def _interrupt(session: Session) -> None:
    """A signal that comes between two calls means nothing."""
    if session.calling:
        raise KeyboardInterrupt


def _staged(server: LaneServer, domain: Any) -> Any:
    """Stand in for `_pool_or_staging` where the pool cannot be registered."""
    server.unreachable = RegistrationFailed("not this memory")
    if server._staging is None:
        server._staging = Region.anonymous(lane_server._STAGING * server.granted)
    return server._memory(domain, server._staging, server._staging.size)


def main() -> int:
    """Run seeds; print those that fail."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.support.simulation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--breach", choices=BREACHES, default="")
    options = parser.parse_args()
    failed = []
    counts: Counter[str] = Counter()
    begun = time.monotonic()
    for seed in range(options.seed, options.seed + options.count):
        try:
            counts += run(seed, options.breach)
        except Exception as error:
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
    counts["seeds"] = options.count
    print(f"{options.count} seeds in {time.monotonic() - begun:.1f} s: {dict(counts)}")
    if figures := os.environ.get("RPMEM_NIGHTLY_FIGURES"):
        with open(figures, "w") as file:
            json.dump({**counts, "failing seeds": len(failed)}, file)
    if failed:
        print(f"failed: {failed}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
