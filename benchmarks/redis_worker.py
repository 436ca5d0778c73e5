"""A Redis client that does only one thing: SET, then WAIT 1 or WAITAOF 1 1.

SET and WAIT go in one write. WAITAOF follows when SET was answered, which is far faster: a replica
that finds both at once says how much it has synced before it syncs, and says it again only after a
second.
"""

from __future__ import annotations

import argparse
import socket
import time

from benchmarks.jobs import Call, Order, serve_calls


class Client:
    """A connection to the first server."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def lines(self, request: bytes, count: int) -> bytes:
        """Send, and read until `count` lines have arrived."""
        self._socket.sendall(request)
        got = b""
        while got.count(b"\r\n") < count:
            got += self._socket.recv(4096)
        return got

    def set_wait(self, request: bytes) -> None:
        """Store, and wait until the replica has it."""
        if not self.lines(request, 2).endswith(b":1\r\n"):
            raise SystemExit("the replica did not acknowledge")

    def set_waitaof(self, request: bytes, wait: bytes) -> None:
        """Store, and wait until both have it on their medium."""
        self.lines(request, 1)
        if not self.lines(wait, 3).endswith(b":1\r\n:1\r\n"):
            raise SystemExit("one of them did not sync")

    def await_replica(self) -> None:
        """Wait until the replica is connected."""
        deadline = time.monotonic() + 30
        request = b"SET ready 1\r\nWAIT 1 100\r\n"
        while not self.lines(request, 2).endswith(b":1\r\n"):
            if time.monotonic() > deadline:
                raise SystemExit("the replica does not follow")
            time.sleep(0.05)


def main() -> None:
    """Take jobs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    client = Client(parser.parse_args().port)
    client.await_replica()

    def calls(order: Order) -> list[Call]:
        value = b"Z" * order.size
        request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n" % (order.size, value)
        if order.op == "set-wait":
            request += b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$5\r\n10000\r\n"
            return [(client.set_wait, [(request,)])]
        wait = b"*4\r\n$7\r\nWAITAOF\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n0\r\n"
        return [(client.set_waitaof, [(request, wait)])]

    serve_calls({"connected": 1}, calls)


if __name__ == "__main__":
    main()
