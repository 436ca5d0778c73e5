"""The rivals. Each module has a class with the same four members; no other code knows a rival.

``name``        in the JSON and on the command line
``label``       in the report
``absent(room)`` why it cannot take part here, or None
``open(room, setting)`` start it; returns an `Opened` whose driver takes jobs
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting


@dataclass
class Opened:
    """A contestant at work: its driver, and the processes that have to end with it."""

    driver: Driver
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    on_close: list[Callable[[], None]] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        """Its processes, without their children."""
        return [self.driver.pid, *(server.pid for server in self.servers)]

    def close(self) -> None:
        """End it all."""
        self.driver.close()
        for server in self.servers:
            if server.stdin is not None:
                server.stdin.close()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            if server.stdout is not None:
                server.stdout.close()
        for action in self.on_close:
            action()


class Backend(Protocol):
    """The interface of a rival's class."""

    name: str
    label: str

    def absent(self, room: Room) -> str | None: ...

    def open(self, room: Room, setting: Setting) -> Opened: ...


def all_backends() -> dict[str, Backend]:
    """Return every rival by name, ours first."""
    from benchmarks.backends import (
        librpma,
        msync,
        ours_low,
        ours_pool,
        perftest,
        pmdk,
        raw_libfabric,
        raw_tcp,
        redis,
        rsync,
    )

    backends: list[Backend] = [
        ours_low.OursLow(),
        ours_pool.OursPool(),
        raw_libfabric.RawLibfabric(),
        raw_tcp.RawTcp(),
        pmdk.Pmdk(),
        msync.Msync(),
        redis.Redis(),
        rsync.Rsync(),
        librpma.Librpma(),
        perftest.Perftest(),
    ]
    return {backend.name: backend for backend in backends}


def reason(backend: Backend, room: Room) -> str | None:
    """Return why a rival is absent, including that it could not be built."""
    try:
        return backend.absent(room)
    except Absent as error:
        return str(error)
