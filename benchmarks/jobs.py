"""The other end of a `Driver`, for contestants written in Python."""

from __future__ import annotations

import json
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.machine import ProcessorClock

#: Most places that one job visits.
PLACES = 1024


@dataclass(frozen=True)
class Order:
    """A job as received; see `benchmarks.driver.Job`."""

    op: str
    size: int
    count: int
    warmup: int
    threads: int
    depth: int
    chunk: int
    span: int

    @classmethod
    def parse(cls, line: str) -> Order:
        op, *numbers = line.split()
        return cls(op, *map(int, numbers))

    def places(self, thread: int, start: int) -> list[int]:
        """Return the offsets that a thread visits repeatedly.

        There are at most `PLACES`, spread over the span, so that the number of cache lines and
        pages touched does not grow with the span.
        """
        stride = max(self.size, 64)
        slots = max(self.span // stride, 1)
        if slots > PLACES:
            stride *= slots // PLACES
            slots = PLACES
        home = start + thread * self.span
        return [home + slot * stride for slot in range(slots)]


Call = tuple[Callable[..., object], Sequence[tuple[object, ...]]]


def clock_cost(count: int = 1001) -> int:
    """Return the nanoseconds between two successive readings of the clock."""
    clock = time.perf_counter_ns
    taken = array("Q", bytes(8 * count))
    for index in range(count):
        start = clock()
        taken[index] = clock() - start
    return sorted(taken)[count // 2]


def measure(call: Callable[..., object], arguments: Sequence[tuple[object, ...]], count: int):
    """Call with each tuple of arguments in turn; return the nanoseconds of each call."""
    clock = time.perf_counter_ns
    turns = len(arguments)
    taken = array("Q", bytes(8 * count))
    if turns == 1:
        only = arguments[0]
        for index in range(count):
            start = clock()
            call(*only)
            taken[index] = clock() - start
        return taken
    for index in range(count):
        these = arguments[index % turns]
        start = clock()
        call(*these)
        taken[index] = clock() - start
    return taken


class Timed(NamedTuple):
    """What a job took: every operation, all of it, and the processors; in nanoseconds."""

    samples: array
    wall: int
    processor: int = 0


def _work(call: Call, order: Order, gate: threading.Barrier, out: list, index: int) -> None:
    function, arguments = call
    try:
        measure(function, arguments, order.warmup)
        gate.wait()
        begun = time.perf_counter_ns()
        taken = measure(function, arguments, order.count)
        out[index] = (begun, time.perf_counter_ns(), taken)
    except BaseException as error:
        gate.abort()
        out[index] = error


def perform(order: Order, calls: Sequence[Call]) -> Timed:
    """Run an order's calls, each in a thread."""
    processor = ProcessorClock()
    gate = threading.Barrier(len(calls), processor.start)
    out: list = [None] * len(calls)
    threads = [
        threading.Thread(target=_work, args=(call, order, gate, out, index))
        for index, call in enumerate(calls[1:], 1)
    ]
    for thread in threads:
        thread.start()
    _work(calls[0], order, gate, out, 0)
    for thread in threads:
        thread.join()
    used = processor.taken()
    broken = [one for one in out if isinstance(one, BaseException)]
    for error in broken:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    samples = array("Q")
    for _, _, taken in out:
        samples.extend(taken)
    return Timed(samples, max(one[1] for one in out) - min(one[0] for one in out), used)


def answer(order: Order, timed: Timed, size: int | None = None) -> None:
    """Send the times of a job."""
    samples = timed.samples
    each = order.size if size is None else size
    head = {
        "exchange": order.op,
        "size": order.size,
        "wall_ns": timed.wall,
        "cpu_ns": timed.processor,
        "bytes": each * len(samples),
        "count": len(samples),
    }
    out = sys.stdout.buffer
    out.write(json.dumps(head).encode() + b"\n")
    out.write(samples.tobytes())
    out.flush()


def serve(hello: dict, handle: Callable[[Order], Timed]) -> None:
    """Send the hello, then take jobs until there are no more."""
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        order = Order.parse(line)
        answer(order, handle(order))


def serve_calls(hello: dict, calls: Callable[[Order], Sequence[Call]]) -> None:
    """As `serve`, for contestants whose ops are calls with arguments."""
    serve({**hello, "clock_ns": clock_cost()}, lambda order: perform(order, calls(order)))
