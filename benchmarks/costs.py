"""One-time and permanent costs: starting, waiting for work, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import statistics
from benchmarks.backends import Backend
from benchmarks.machine import descendants, scheduled
from benchmarks.room import MIB, PROJECT, Absent, Room, Setting, python_module, source_tree

_REPEATS = 7
_IDLE = 2.0

#: A session in a separate process without numpy, to see the memory of rpmem alone.
_SESSION = """
import mmap, sys, rpmem
memory = mmap.mmap(-1, 64 << 20)
replica = rpmem.create(sys.argv[1], "idle.set", memory, 1, rpmem.PoolAttributes(), parts=1)
replica.persist(4096, 64)
print("ready", flush=True)
sys.stdin.read()
memory_is_free = replica.close(remove=True)
"""


def figure(
    name: str, values: Sequence[float], unit: str, limit: float | None = None
) -> dict[str, Any]:
    """Return one figure for the JSON: the median of its values, and the values."""
    return {
        "name": name,
        "value": statistics.median(values),
        "values": list(values),
        "unit": unit,
        "limit": limit,
    }


def _processor_ms(words: Sequence[str], stdin: int, read: int = 0) -> float:
    """Run a program to its end; return its CPU time in ms.

    With `read` the program is a server: once it has written so many bytes, its input is closed to
    end it.
    """
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE if read else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **source_tree()},
        cwd="/",
    )
    assert process.stdout is not None
    if read:
        assert process.stdin is not None
        process.stdout.read(read)
        process.stdin.close()
    process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return 1e3 * (usage.ru_utime + usage.ru_stime)


def starting(room: Room) -> list[dict[str, Any]]:
    """Measure the CPU time of starts."""
    folder = room.place("start")
    python = [sys.executable, "-P", "-c"]
    daemon = python_module("rpmemd", "--poolset-dir", folder, "--log-file", folder / "log")
    found = {"bare": [], "import": [], "daemon": []}  # type: dict[str, list[float]]
    for _ in range(_REPEATS):
        found["bare"].append(_processor_ms([*python, "pass"], subprocess.DEVNULL))
        found["import"].append(_processor_ms([*python, "import rpmem"], subprocess.DEVNULL))
        # the status word: ready to serve
        found["daemon"].append(_processor_ms(daemon, subprocess.PIPE, read=4))
    return [
        figure("start of Python alone", found["bare"], "ms CPU"),
        figure("start of Python and import rpmem", found["import"], "ms CPU", 100),
        figure("start of rpmemd, until it is ready", found["daemon"], "ms CPU", 100),
    ]


def _resident(pid: int) -> float:
    """Return resident MiB without shared memory (the target's pool on tmpfs)."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")) / 1024


def idle(room: Room) -> list[dict[str, Any]]:
    """Measure an idle session: CPU time per second, and memory."""
    folder = room.place("idle")
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _SESSION, f"local:{folder}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **source_tree(), "RPMEM_PROVIDER": room.provider},
        cwd=PROJECT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise Absent("the idle session did not begin")
        time.sleep(0.5)
        family = descendants([process.pid])
        targets = [
            pid
            for pid in family
            if pid != process.pid and b"rpmemd" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        ran, _ = scheduled(family)
        time.sleep(_IDLE)
        ran_after, _ = scheduled(family)
        figures = [
            figure("idle session, both sides", [(ran_after - ran) / 1e6 / _IDLE], "ms CPU/s", 1),
            figure("initiator resident beyond the pool", [_resident(process.pid)], "MiB", 25),
        ]
        if targets:
            mib = [_resident(max(targets))]
            figures.append(figure("rpmemd resident beyond the pool", mib, "MiB", 25))
        return figures
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(20)


def overhead(room: Room) -> list[dict[str, Any]]:
    """Measure calls over a fabric that completes everything immediately."""
    result = subprocess.run(
        python_module("benchmarks.overhead"),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **source_tree()},
        timeout=120,
    )
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:]
        raise Absent(f"the overhead of calls cannot be measured: {' '.join(last)}")
    limits = {
        "core, (offset, length)": 150,
        "core, ndarray": 250,
        "a range in a batch": 60,
    }
    return [
        figure(name, values, "ns", limits.get(name))
        for name, values in json.loads(result.stdout).items()
    ]


def memory_per_pool(room: Room, backend: Backend) -> list[dict[str, Any]]:
    """Measure the target's private memory by pool size: untouched pages should cost none."""
    figures = []
    for size in (64 * MIB, 1024 * MIB):
        opened = backend.open(room, Setting(pool=size))
        try:
            targets = [
                pid
                for pid in descendants(opened.pids) - set(opened.pids)
                if b"rpmemd" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            name = f"rpmemd's private memory, pool of {size // MIB} MiB"
            if targets:
                figures.append(figure(name, [_resident(max(targets))], "MiB"))
        finally:
            opened.close()
    return figures
