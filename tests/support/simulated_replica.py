"""A replica over the fake fabric: both ends, and a model of the data that has to be durable."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from rpmem.control.messages import LaneGrant, Ready
from rpmem.control.proof import new_token
from rpmem.errors import RpmemError
from rpmem.memory.region import Region
from rpmem.session.lanes import Lanes
from rpmemd.admission import TokenAdmission
from rpmemd.lane_server import NATIVE, PMDK, LaneServer
from rpmemd.log import Log
from tests.support.compiled import compiled
from tests.support.simulated_plan import FLOOR, MESSAGES, SIZE, Plan

_break_step = compiled("_broken_steps").break_step
_Target = compiled("_fake_world").Target
# Bytes that are compared at once.
_BLOCK = 64
_nowhere = open(os.devnull, "w")  # noqa: SIM115


class Broken(AssertionError):
    """Something that has to be true was not."""


class Lost(RpmemError):
    """A replica was given up; `fault` says why."""

    def __init__(self, fault: int, refusal: int, detail: int) -> None:
        super().__init__(f"fault {fault}, refusal {refusal}, detail {detail}")
        self.fault = fault


class Owner:
    """What a replica is to its lanes."""

    target = "a target"

    def explain(self, fault: int, refusal: int, detail: int) -> Lost:
        """Return the error of a fault."""
        return Lost(fault, refusal, detail)


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
        self.target = _Target(
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
            spin_s=0.0,
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
            timeout_s=5.0,
            native=not plan.pmdk,
            answers=plan.step == MESSAGES,
        )
        self.target.serve_with(server._service)
        self.group = self.lanes.group(plan.step, Owner())
        if plan.breach in ("counts answers", "does not wait"):
            _break_step(self.group, plan.breach)

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
                for piece in outside(offset, data, at, at + length)
            ]

    def check(self) -> None:
        """Compare the image with what was said of it."""
        image = self.target.image
        if image == self.acked:
            return
        for start in range(0, SIZE, _BLOCK):
            if image[start : start + _BLOCK] != self.acked[start : start + _BLOCK]:
                for index in range(start, start + _BLOCK):
                    self._compare(index, image[index])

    def _compare(self, index: int, found: int) -> None:
        if found != self.acked[index] and not self.may_have(index, found):
            raise Broken(
                f"byte {index} of replica {self.target.world.targets.index(self.target)} is "
                f"{found} and not {self.acked[index]}, as was acknowledged"
            )

    def may_have(self, index: int, value: int) -> bool:
        """Return whether a byte was sent and not acknowledged."""
        return any(
            offset <= index < offset + len(data) and data[index - offset] == value
            for offset, data in self.maybe
        )

    def close(self) -> None:
        """End both sides."""
        if self.lanes is not None:
            self.lanes.close()
        self.server.close()


def outside(offset: int, data: bytes, low: int, high: int) -> list[tuple[int, bytes]]:
    """Return the pieces of some bytes that lie outside of a range."""
    end = offset + len(data)
    if end <= low or high <= offset:
        return [(offset, data)]
    pieces = [(offset, data[: low - offset])] if offset < low else []
    return pieces + ([(high, data[high - offset :])] if high < end else [])
