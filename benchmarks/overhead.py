"""The cost of a call when the fabric costs nothing; run as a separate process.

Prints one JSON object: nanoseconds per call, without the loop around it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import rpmem
from benchmarks import instant
from rpmem import Region
from rpmem._core import Replicator
from rpmem.engine.lanegroup import LaneGroup

_CALLS = 20_000
_REPEATS = 15
_RANGES = 1000


class _Owner:
    def explain(self, fault: int, refusal: int, detail: int) -> rpmem.RpmemError:
        return rpmem.FabricFailure(f"the instant fabric failed: {fault} {refusal} {detail}")


def _per_call(call: Callable[..., object], *arguments: Any, calls: int = _CALLS) -> list[float]:
    """Return nanoseconds per call for every repetition, in ascending order."""
    clock = time.perf_counter_ns
    empty, full = [], []
    for _ in range(_REPEATS):
        start = clock()
        for _ in range(calls):
            pass
        empty.append(clock() - start)
        start = clock()
        for _ in range(calls):
            call(*arguments)
        full.append(clock() - start)
    return sorted((one - min(empty)) / calls for one in full)


def _replicator(region: Region) -> Replicator:
    lane = instant.load().InstantLane()
    group = LaneGroup(
        [lane], "send-after-write", region, message_size=1 << 16, window=8, owner=_Owner()
    )
    return Replicator(region, [group], local=False, floor=4096)


def main() -> None:
    """Measure and print."""
    memory = np.zeros(8 << 20, dtype=np.uint8)
    core = _replicator(Region.from_buffer(memory))
    array = memory[8192 : 8192 + 64]
    ranges = np.empty((_RANGES, 2), dtype=np.uint64)
    ranges[:, 0] = 8192 + np.arange(_RANGES, dtype=np.uint64) * 128
    ranges[:, 1] = 64

    pool = rpmem.Pool.create(np.zeros(8 << 20, dtype=np.uint8), replicas=[])
    view = pool.array("bench", 1 << 16, "u1")[:64]
    offset = pool.entry("bench").offset
    # The pool's own code, over the instant fabric instead of without one.
    pool._copies.core = _replicator(pool._region)

    def nothing(x: object) -> None:
        pass

    figures = {
        "a Python function that does nothing": _per_call(nothing, (8192, 64)),
        "core, (offset, length)": _per_call(core.persist, (8192, 64)),
        "core, ndarray": _per_call(core.persist, array),
        "Pool.persist, (offset, length)": _per_call(pool.persist, (offset, 64)),
        "Pool.persist, ndarray": _per_call(pool.persist, view),
        "a range in a batch": [
            taken / _RANGES for taken in _per_call(core.persist_many, ranges, calls=50)
        ],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
