"""A medium that records what was made durable and in which order, and can refuse.

As on the shadow medium, memory is a private copy, and only durable data reaches the files: on a
page medium after a flush, on persistent memory after a flush and a drain.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from rpmem.files.poolfiles import PoolFiles
from rpmem.memory.region import Region
from tests.support.compiled import compiled


class Event(NamedTuple):
    """A call of the medium: "flush", "persist", "deep" or "drain", and its range."""

    verb: str
    offset: int
    length: int


_mapped_again = PoolFiles.again


@contextmanager
def _again(files: PoolFiles) -> Iterator[tuple[Region, Callable[[], None]]]:
    """As `PoolFiles.again`; two mappings of a file have the same bytes, flushed or not."""
    with _mapped_again(files) as (memory, leave):
        memory.write(0, files.region)
        yield memory, leave


class Recorded:
    """A medium, and what it was asked for.

    Parameters
    ----------
    medium : {"page", "pmem"}
        What it passes for.

    Attributes
    ----------
    events : list of Event
        Every call.
    refuses : callable or None
        ``refuses(event)`` gives the errno of a call that is to fail, or 0.
    watch : callable or None
        Called with every event, before it is carried out.
    """

    def __init__(self, medium: str = "page") -> None:
        self.medium = medium
        self.events: list[Event] = []
        self.refuses: Callable[[Event], int] | None = None
        self.watch: Callable[[Event], None] | None = None
        self._pending: list[Event] = []
        self._pieces: list[tuple[int, int, int, int]] = []
        self._address = 0

    def map(self, spans: Sequence[tuple[int, int, int]]) -> Region:
        """Map parts; what `PoolFiles.mapper` can be."""
        hooked = compiled("_hooked_media")
        region = Region.map_parts(spans)
        hooked.make_private(region, spans)
        self._pieces.clear()
        start = 0
        for fd, file_offset, length in spans:
            # Opened anew: a duplicate would keep the file's lock after its owner has closed it.
            file = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
            weakref.finalize(region, os.close, file)
            self._pieces.append((start, start + length, file, file_offset))
            start += length
        self._address = region.address
        hooked.hook(region, self._called, medium=self.medium)
        return region

    @contextmanager
    def installed(self) -> Iterator[Recorded]:
        """Let the pools of this process lie on it; those that are open stay on it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PoolFiles, "mapper", staticmethod(self.map))
            patch.setattr(PoolFiles, "again", _again)
            yield self

    def named(self, *verbs: str) -> list[Event]:
        """Return the events of these verbs."""
        return [event for event in self.events if event.verb in verbs]

    def covers(self, offset: int, length: int) -> bool:
        """Whether every byte of a range was flushed since `events` was cleared."""
        left = set(range(offset, offset + length))
        for event in self.named("flush", "persist", "deep"):
            left -= set(range(event.offset, event.offset + event.length))
        return not left

    def _called(self, verb: str, offset: int, length: int) -> int:
        event = Event(verb, offset, length)
        self.events.append(event)
        if self.watch is not None:
            self.watch(event)
        if self.refuses is not None and (number := self.refuses(event)):
            return number
        if verb == "drain" or (self.medium == "pmem" and verb == "persist"):
            for earlier in self._pending:
                self._write(earlier)
            self._pending.clear()
        if verb == "flush" and self.medium == "pmem":
            self._pending.append(event)
        elif verb != "drain":
            self._write(event)
        return 0

    def _write(self, event: Event) -> None:
        _, offset, length = event
        for first, end, file, file_offset in self._pieces:
            if first <= offset < end:
                data = (ctypes.c_char * length).from_address(self._address + offset)
                assert os.pwrite(file, data, file_offset + offset - first) == length
                return
        raise AssertionError(f"no part holds {event}")
