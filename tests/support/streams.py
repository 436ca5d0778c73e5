"""What tests of every kind of transport do with its streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rpmem.errors import ClosedError
from rpmem.launch.base import Transport

#: Seconds: longer than anything here takes, shorter than a test's own limit.
SOON = 20.0


def read_all(transport: Transport) -> bytes:
    """Return what comes until the far side closes its stdout."""
    data = b""
    while chunk := transport.receive(1 << 16, SOON):
        data += chunk
    return data


def echoed(transport: Transport, message: bytes) -> bytes:
    """Send a message, and return as many bytes that were received at the same time."""
    got = bytearray()

    def receive() -> None:
        while len(got) < len(message):
            got.extend(transport.receive(1 << 16, SOON))

    reader = threading.Thread(target=receive)
    reader.start()
    transport.send(message)
    reader.join(SOON)
    return bytes(got)


def received_at_the_end(
    transport: Transport, end: Callable[[], None], *, head_start_s: float
) -> bytes | ClosedError:
    """Return what a receiver that waits gets when the transport is ended by another thread."""
    result: list[bytes | ClosedError] = []

    def listen() -> None:
        try:
            result.append(transport.receive(1, None))
        except ClosedError as error:
            result.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(head_start_s)
    end()
    listener.join(SOON)
    assert not listener.is_alive()
    return result[0]
