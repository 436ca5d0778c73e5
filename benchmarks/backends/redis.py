"""Redis with one replica: ``SET``, and the acknowledgement awaited.

`Redis` waits until the replica has it (``WAIT 1``). Nothing is written to disk (no append-only
file), so this is Redis at its fastest. `DurableRedis` waits until both have it on their medium
(``WAITAOF 1 1``, ``appendfsync always``).
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, python_module, source_tree


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _server(
    command: Sequence[str], place: Path, seen: str, port: int, *more: str
) -> subprocess.Popen[bytes]:
    """Start one in a folder, which it sees as `seen`."""
    place.mkdir()
    return subprocess.Popen(
        [
            *command,
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", seen),
            *("--save", "", "--logfile", f"{seen}/log"),
            *("--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb"),
            *more,
        ],
        stdin=subprocess.DEVNULL,
    )


def _await(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise Absent("redis-server does not start") from None
            time.sleep(0.05)


class Redis:
    """``benchmarks/redis_worker.py``; its op is ``set-wait``."""

    name = "redis"
    label = "Redis, SET + WAIT 1"
    settings: tuple[str, ...] = ("--appendonly", "no")

    def absent(self, room: Room) -> str | None:
        """Say whether Redis is installed."""
        if shutil.which("redis-server") is None:
            return "redis-server is not installed"
        return None

    def command(self) -> list[str]:
        """Return what starts a server."""
        return ["redis-server"]

    def seen(self, place: Path) -> str:
        """Return a folder as servers see it."""
        return str(place)

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start a server, its replica and a client."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("one client, one replica")
        place = room.place("redis")
        port, replica_port = _free_port(), _free_port()
        follow = ("--replicaof", "127.0.0.1", str(port))
        servers = [
            _server(self.command(), each, self.seen(each), listening, *self.settings, *more)
            for each, listening, more in (
                (place / "first", port, ()),
                (place / "second", replica_port, follow),
            )
        ]

        def stop() -> None:
            for server in servers:
                server.terminate()
                server.wait(10)

        try:
            _await(port)
            words = python_module("benchmarks.redis_worker", port)
            return Opened(Driver(words, place / "worker.log", source_tree()), on_close=[stop])
        except BaseException:
            stop()
            raise


class DurableRedis(Redis):
    """Both servers append and sync before they acknowledge; the worker's op is ``set-waitaof``.

    Parameters
    ----------
    root : Path, optional
        Of a system that has redis-server, entered by chroot; the room has to be inside.
    """

    name = "redis-durable"
    label = "Redis, SET + WAITAOF 1 1"
    settings = ("--appendonly", "yes", "--appendfsync", "always")

    def __init__(self, root: Path | None = None) -> None:
        self._root = root

    def absent(self, room: Room) -> str | None:
        """Say whether Redis is there."""
        if self._root is None:
            return super().absent(room)
        if not (self._root / "usr" / "bin" / "redis-server").exists():
            return f"there is no redis-server in {self._root}"
        return None

    def command(self) -> list[str]:
        """Return what starts a server."""
        first = [] if self._root is None else ["chroot", str(self._root)]
        return [*first, *super().command()]

    def seen(self, place: Path) -> str:
        """Return a folder as servers see it."""
        return str(place) if self._root is None else f"/{place.relative_to(self._root)}"
