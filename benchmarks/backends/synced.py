"""The floor of two media: 64 B written in place and synced here and in another process, at once."""

from __future__ import annotations

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, python_module, source_tree


class Synced:
    """``benchmarks/synced_worker.py``; its op is ``send``."""

    name = "synced"
    label = "write and fdatasync, twice"

    def absent(self, room: Room) -> str | None:
        """Say that nothing is missing."""
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start it; it starts the other process."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("two files only")
        place = room.place("synced")
        words = python_module("benchmarks.synced_worker", place, setting.pool)
        return Opened(Driver(words, place / "worker.log", source_tree()))
