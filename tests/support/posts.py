"""A replicator with one replica, over lanes that record their posts."""

from __future__ import annotations

import os
from typing import Any

from rpmem._core import Replicator
from rpmem.engine.lanegroup import LaneGroup
from rpmem.errors import DeadlineExceeded, FlushFailed, MalformedMessage, RpmemError
from rpmem.memory.region import Region
from rpmem.wire.lane import LANE_GARBLED, LANE_REFUSED
from tests.support.compiled import compiled

SIZE = 1 << 20
BASE = 1 << 40
WINDOW = 4

NATIVE = ("send-after-write", "read-after-write", "commit", "flush")
ONE_SIDED = ("read-after-write", "delivered", "commit", "flush")
PMDK = ("pmdk-send-after-write", "pmdk-read-after-write")
EVERY = (*NATIVE, "delivered", *PMDK)
#: A range that goes one-sided in every step that can.
LONG = (8192, 65536)


class Owner:
    """Turns faults into errors, as a replica does."""

    target = "a target"

    def explain(self, fault: int, refusal: int, detail: int) -> RpmemError:
        """Return the error of a fault."""
        if fault == LANE_REFUSED:
            return FlushFailed(f"refused with {refusal}", errno=detail)
        if fault == LANE_GARBLED:
            return MalformedMessage("garbled")
        return DeadlineExceeded(f"fault {fault}")


class Bench:
    """A replicator over recording lanes to one replica; `lane` is the first of them."""

    def __init__(
        self,
        step: str,
        *,
        lanes: int = 1,
        floor: int = 0,
        message_size: int | None = None,
        timeout: float = 0.05,
        staging: int = 0,
        **wishes: Any,
    ) -> None:
        pmdk = step.startswith("pmdk-")
        limits = {"message_size": message_size or (16384 if pmdk else 65536)}
        self.lanes = [
            compiled("_recording_lane").RecordingLane(
                SIZE,
                delivers=step == "delivered",
                pmdk=pmdk,
                base=BASE if pmdk else 0,
                **limits,
                **wishes,
            )
            for _ in range(lanes)
        ]
        self.lane = self.lanes[0]
        self.region = Region.anonymous(SIZE)
        with memoryview(self.region) as view:
            view[:] = os.urandom(SIZE)
        self.group = LaneGroup(
            self.lanes,
            {"delivered": "read-after-write"}.get(step, step.removeprefix("pmdk-")),
            self.region,
            message_size=limits["message_size"],
            window=1 if pmdk else WINDOW,
            owner=Owner(),
            dialect="pmdk" if pmdk else "native",
            remote_base=BASE if pmdk else 0,
            staging=staging,
        )
        self.core = Replicator(
            self.region, [self.group], local=False, floor=floor, timeout_s=timeout
        )

    def same(self, offset: int, length: int) -> bool:
        """Whether the target has what stands here."""
        with memoryview(self.region) as view:
            there: bytes = self.lane.read_pool(offset, length)
            return there == bytes(view[offset : offset + length])

    def kinds(self) -> list[str]:
        """Return what was posted since it was last asked."""
        return [post[0] for post in self.lane.posts()]
