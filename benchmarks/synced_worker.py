"""Bytes written in place and synced in two files by two processes, and nothing besides."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from benchmarks.jobs import Call, Order, serve_calls

_AT = 4096


def _file(path: Path, size: int) -> int:
    """Return a file whose every block is there."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(descriptor, 0, size)
    os.pwrite(descriptor, bytes(size), 0)
    os.fsync(descriptor)
    return descriptor


def _other(connection: socket.socket, descriptor: int) -> None:
    """Write and sync what comes, and answer."""
    while data := connection.recv(1 << 16):
        os.pwrite(descriptor, data, _AT)
        os.fdatasync(descriptor)
        connection.sendall(b"1")


def main() -> None:
    """Take jobs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("size", type=int)
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    for each in (connection, other):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if os.fork() == 0:
        connection.close()
        _other(other, _file(given.folder / "second", given.size))
        os._exit(0)
    other.close()
    mine = _file(given.folder / "first", given.size)

    def both(data: bytes) -> None:
        connection.sendall(data)
        os.pwrite(mine, data, _AT)
        os.fdatasync(mine)
        connection.recv(1)

    def calls(order: Order) -> list[Call]:
        return [(both, [(b"Z" * order.size,)])]

    serve_calls({"connected": 1}, calls)


if __name__ == "__main__":
    main()
