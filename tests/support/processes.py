"""Which processes serve, and waiting until they are certainly stopped, or certainly gone."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_LONG = 60.0


def stop(pid: int) -> None:
    """Send SIGSTOP and wait until every thread has stopped, which on a busy machine takes time."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _LONG
    while not all(state == "T" for state in _states(pid)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.001)


def wait_gone(pid: int) -> None:
    """Wait until a process has ended."""
    deadline = time.monotonic() + _LONG
    while any(state not in "ZX" for state in _states(pid)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not end")
        time.sleep(0.002)


def serving_at(directory: Path) -> list[int]:
    """Return the processes that were started to serve a pool set directory."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and str(directory).encode() in (
                words := (process / "cmdline").read_bytes()
            ):
                found += [int(process.name)] * (b"rpmemd" in words)
    return found


def _states(pid: int) -> list[str]:
    try:
        return [
            (task / "stat").read_text().rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{pid}/task").iterdir()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
