"""A session over the fake fabric, drawn from a seed, and what has to be true of it.

One thread runs everything: the real engine and the real steps here, the real service there, and
between them a fabric that delays, reorders what may be reordered, repeats answers, and lets one
thing go wrong. What is acknowledged has to be in the target's durable image, at that moment and
until it is written again; what went wrong has to be said; and where nothing goes wrong, nothing is
said. ``python -m tests.support.simulation --seed N`` runs one session, ``--count M`` the next M.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from rpmem._core import Replicator
from rpmem.control.messages import LaneGrant, Ready
from rpmem.control.proof import new_token
from rpmem.errors import RpmemError
from rpmem.memory.region import Region
from rpmem.session.lanes import Lanes
from rpmem.wire.lane import (
    LANE_ABORTED,
    LANE_EXPIRED,
    LANE_GARBLED,
    LANE_INTERRUPTED,
    LANE_LOST,
    LANE_REFUSED,
)
from rpmemd import lane_server
from rpmemd.admission import TokenAdmission
from rpmemd.lane_server import NATIVE, PMDK, LaneServer
from rpmemd.log import Log
from tests.support.compiled import compiled

fabric = compiled("_fake_fabric")
fake = compiled("_fake_world")
settle = compiled("_fake_traffic").settle
break_step = compiled("_broken_steps").break_step

SIZE = 16384
FLOOR = 4096
#: Virtual seconds without progress until a replica is given up.
PATIENCE_S = 0.3
#: What a step can be told to do wrong; the model has to notice.
BREACHES = ("counts answers", "does not wait", "forgets", "doubles posts", "skips flush")

_KINDS = (
    *("persist", "persist", "relaxed", "many", "flush", "flush"),
    *("drain", "deep", "read", "put", "wait"),
)
_STEPS = ("send-after-write", "read-after-write", "commit", "flush")
_NATIVE_ONLY = (fake.FAULT_DROP_REPLY, fake.FAULT_DROP_MESSAGE, fake.FAULT_DOUBLE_MESSAGE)

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


class Broken(AssertionError):
    """Something that has to be true was not."""


class Lost(RpmemError):
    """A replica was given up; `fault` says why."""

    def __init__(self, fault: int, refusal: int, detail: int) -> None:
        super().__init__(f"fault {fault}, refusal {refusal}, detail {detail}")
        self.fault = fault


class Owner:
    """What a replica is to its lanes."""

    def explain(self, fault: int, refusal: int, detail: int) -> Lost:
        """Return the error of a fault."""
        return Lost(fault, refusal, detail)


class Parked:
    """A thread that never runs by itself: its work is done where its turn comes."""

    def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...], **_: Any) -> None:
        self.work = lambda: target(*args)

    def start(self) -> None:
        """Do nothing yet."""

    def join(self) -> None:
        """There is nothing to wait for."""


class Plan:
    """What a seed means: the fabric, the session, what goes wrong, and the calls."""

    def __init__(self, seed: int, breach: str = "") -> None:
        self.seed = seed
        self.breach = breach
        draw = self.random = random.Random(seed)
        self.pmdk = breach == "" and draw.random() < 0.15
        self.step = draw.choice(_STEPS[:2] if self.pmdk else _STEPS)
        if breach == "forgets":
            self.step = draw.choice(_STEPS[2:])
        elif breach == "doubles posts":
            self.step = "commit"
        elif breach in ("counts answers", "skips flush"):
            self.step = _STEPS[0]
        self.replicas = draw.choice((1, 1, 2))
        self.lanes = 1 if self.pmdk else draw.choice((1, 2, 3))
        self.medium = "pmem" if self.step != _STEPS[0] else draw.choice(("page", "pmem"))
        self.stages = not self.pmdk and self.step == _STEPS[0] and draw.random() < 0.15
        self.message_size = draw.choice((128, 256, 1024, 4096))
        self.fault = draw.randrange(fake.FAULTS) if breach == "" and draw.random() < 0.7 else 0
        if self.pmdk and self.fault in _NATIVE_ONLY:
            # Its answers have no number: one that is lost cannot be told from the next.
            self.fault = fake.FAULT_CUT
        self.world = {
            "delay_ns": draw.choice((0, 1000, 10_000, 400_000, 3_000_000)),
            "depth": draw.choice((3, 8, 64)),
            "again_in": draw.choice((0, 0, 2, 9)),
            "double_in": 0 if self.pmdk else draw.choice((0, 0, 2, 5)),
            "doubles_posts": breach == "doubles posts",
            "early": draw.random() < 0.5,
            "holds": draw.random() < 0.5,
            "pins": draw.random() < 0.5,
            "fails_polls": draw.random() < 0.3,
            "delivers": self.step == "read-after-write" and draw.random() < 0.5,
            "inline_limit": draw.choice((0, 64, 256)),
            "operation_limit": 1 << 20 if self.stages else draw.choice((512, 4096, 1 << 20)),
            "fault": self.fault,
            "fault_at": draw.choice((1, 3, 10, 30)) + draw.randrange(20),
            "fault_target": draw.randrange(self.replicas),
        }
        if breach in ("counts answers", "doubles posts"):
            self.world["double_in"] = 2
        self.spin_s = draw.choice((0.0, 50e-6))
        self.calls = draw.randrange(4, 16)
        self.kinds = _KINDS
        if self.fault == fake.FAULT_SILENT_INTERRUPT:
            # Only a read has to wait for what it asked for.
            self.kinds += ("read",) * len(_KINDS)


class Replica:
    """Both ends of a replica, and what has to be in its image.

    Attributes
    ----------
    acked : bytearray
        What is durable there, as the initiator was told.
    maybe : list of (int, bytes)
        What was sent and not acknowledged: it may be there.
    """

    def __init__(self, plan: Plan, world: Any, here: Region, number: int) -> None:
        self.plan = plan
        self.here = here
        self.there = Region.anonymous(SIZE)
        with memoryview(here) as source, memoryview(self.there) as copy:
            copy[:] = source
        self.target = fake.Target(
            world,
            self.there,
            medium=plan.medium,
            reaches_domain=plan.step == "read-after-write",
            forgets=plan.breach == "forgets",
        )
        self.acked = bytearray(self.target.image)
        self.maybe: list[tuple[int, bytes]] = []
        self.lanes: Lanes | None = None
        self.group: Any = None
        self.server = LaneServer(
            self.there,
            size=SIZE,
            floor=FLOOR,
            providers=("fake",),
            address=str(number),
            lanes=plan.lanes,
            message_size=plan.message_size,
            dialect=PMDK if plan.pmdk else NATIVE,
            may_stage=True,
            threads=plan.random.choice((1, 2)),
            spin=0.0,
            report=lambda error: self.target.end(),
        )
        self.tokens = tuple(new_token() for _ in range(self.server.granted))

    def connect(self) -> None:
        """Connect its lanes, by way of the real admission."""
        plan, server = self.plan, self.server
        grants = (
            LaneGrant(token=token, key=key, address=address)
            for token, (key, address) in zip(
                self.tokens, map(server.reach, range(server.granted)), strict=True
            )
        )
        ready = Ready(
            provider="fake",
            address="fake",
            port=server.port,
            lanes=tuple(grants),
            pool_size=SIZE,
            medium=plan.medium,
            steps=(plan.step,),
            message_size=server.message_size,
            window=server._dialect.window,
            staging=server.staging,
        )
        if plan.pmdk:
            admission: Any = SimpleNamespace(admit=lambda data, peer: peer[1])
        else:
            admission = TokenAdmission(self.tokens, Log(file=_nowhere))
        server.start(admission)
        self.target.world.admit = self._accept
        self.lanes = Lanes(
            ready,
            ["fake"],
            self.here,
            timeout=5.0,
            native=not plan.pmdk,
            answers=plan.step == _STEPS[0],
        )
        self.target.serve_with(server._service)
        self.group = self.lanes.group(plan.step, Owner())
        if plan.breach in ("counts answers", "does not wait"):
            break_step(self.group, plan.breach)

    def _accept(self) -> None:
        self.target.world.admit = None
        self.server._threads[0].work()

    def sent(self, ranges: list[tuple[int, int]]) -> None:
        """Note what may be there from now on."""
        with memoryview(self.here) as view:
            self.maybe += [(at, bytes(view[at : at + length])) for at, length in ranges]

    def acknowledged(self, ranges: list[tuple[int, int]]) -> None:
        """Note what has to be there: older bytes of the same ranges must not come any more."""
        with memoryview(self.here) as view:
            for at, length in ranges:
                self.acked[at : at + length] = view[at : at + length]
        for at, length in ranges:
            self.maybe = [
                piece
                for offset, data in self.maybe
                for piece in _outside(offset, data, at, at + length)
            ]

    def check(self) -> None:
        """Compare the image with what was said of it."""
        image = self.target.image
        if image == self.acked:
            return
        allowed: dict[int, set[int]] = {}
        for offset, data in self.maybe:
            for index, value in enumerate(data, offset):
                allowed.setdefault(index, set()).add(value)
        for index, (found, wanted) in enumerate(zip(image, self.acked, strict=True)):
            if found != wanted and found not in allowed.get(index, ()):
                raise Broken(
                    f"byte {index} of replica {self.target.world.targets.index(self.target)} is "
                    f"{found} and not {wanted}, as was acknowledged"
                )

    def close(self) -> None:
        """End both sides."""
        if self.lanes is not None:
            self.lanes.close()
        self.server.close()


def _outside(offset: int, data: bytes, low: int, high: int) -> list[tuple[int, bytes]]:
    """Return the pieces of some bytes that lie outside of a range."""
    end = offset + len(data)
    if end <= low or high <= offset:
        return [(offset, data)]
    pieces = [(offset, data[: low - offset])] if offset < low else []
    return pieces + ([(high, data[high - offset :])] if high < end else [])


class Session:
    """The calls of one seed, and the checks after each."""

    def __init__(self, plan: Plan, world: Any) -> None:
        self.plan = plan
        self.world = world
        self.counts: Counter[str] = Counter()
        self.calling = False
        self.said = False
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
            spin=self.plan.spin_s,
            timeout=PATIENCE_S,
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
        if kind == "flush":
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
            return
        for index, value in enumerate(into, at):
            if value != replica.acked[index] and not any(
                offset <= index < offset + len(data) and data[index - offset] == value
                for offset, data in replica.maybe
            ):
                raise Broken(f"byte {index} was read as {value}, not {replica.acked[index]}")

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
        if error.fault not in said | ({LANE_ABORTED} if self.said else set()):
            raise Broken(f"{kind}: {error}, after {[each.target.faults for each in lost]}")
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
            rest for offset, data in pieces for rest in _outside(offset, data, at, at + length)
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
    from rpmem.errors import RegistrationFailed

    server.unreachable = RegistrationFailed("not this memory")
    if server._staging is None:
        server._staging = Region.anonymous(lane_server._STAGING * server.granted)
    return server._memory(domain, server._staging, server._staging.size)


_nowhere = open(os.devnull, "w")  # noqa: SIM115


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
