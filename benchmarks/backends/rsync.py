"""rsync of a file of the pool's size after SIZE bytes of it have changed."""

from __future__ import annotations

import shutil

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, python_module, source_tree


class Rsync:
    """``benchmarks/rsync_worker.py``; its op is ``sync``."""

    name = "rsync"
    label = "rsync of a 64 MiB file"

    def absent(self, room: Room) -> str | None:
        """Say whether rsync is installed."""
        if shutil.which("rsync") is None:
            return "rsync is not installed"
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Make the file and its first copy."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("one copy at a time")
        place = room.place("rsync")
        words = python_module("benchmarks.rsync_worker", place, setting.pool)
        return Opened(Driver(words, place / "worker.log", source_tree()))
