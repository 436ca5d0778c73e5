"""Redis with one replica, ``SET`` then ``WAIT 1``: acknowledged when the replica has it.

Nothing is written to disk (no append-only file), so this is Redis at its fastest.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, python_module, source_tree


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _server(place: Path, port: int, *more: str) -> subprocess.Popen[bytes]:
    place.mkdir()
    return subprocess.Popen(
        [
            "redis-server",
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(place)),
            *("--save", "", "--appendonly", "no", "--logfile", str(place / "log")),
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

    def absent(self, room: Room) -> str | None:
        """Say whether Redis is installed."""
        if shutil.which("redis-server") is None:
            return "redis-server is not installed"
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start a server, its replica and a client."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("one client, one replica")
        place = room.place("redis")
        port, replica_port = _free_port(), _free_port()
        servers = [
            _server(place / "first", port),
            _server(place / "second", replica_port, "--replicaof", "127.0.0.1", str(port)),
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
