"""rpmem's upper tier: `rpmem.Pool`, named arrays, ``pool.persist(view)``."""

from __future__ import annotations

from benchmarks.backends import Opened, ours_low
from benchmarks.room import Room, Setting


class OursPool:
    """Ops: those of ``benchmarks/worker.py``."""

    name = "pool"
    label = "rpmem, Pool"

    def absent(self, room: Room) -> str | None:
        """Say whether the compiled parts are there."""
        return ours_low.OursLow().absent(room)

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start it."""
        return ours_low.start("pool", room, setting)
