"""The initiator as rpmemd sees it: bytes that come, and bytes that go."""

from __future__ import annotations

import os
import select

__all__ = ["Stream"]

_CHUNK = 1 << 16


class Stream:
    """The initiator, as two file descriptors."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self._sink = sink

    def write(self, data: bytes) -> None:
        """Write all of `data`; reading will show if the initiator is gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._sink, view) :]
            except BlockingIOError:
                # The process that started us shares it with one that made it non-blocking.
                _wait_for(self._sink, select.POLLOUT)
            except OSError:
                return

    def read(self) -> bytes:
        """Wait for bytes; an empty result means that the initiator is gone."""
        while True:
            try:
                return os.read(self.source, _CHUNK)
            except BlockingIOError:
                _wait_for(self.source, select.POLLIN)
            except OSError:
                return b""


def _wait_for(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()
