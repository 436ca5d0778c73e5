"""perftest's ib_write_lat, if there is a verbs device: the lower limit of the hardware."""

from __future__ import annotations

import shutil

from benchmarks.backends import Opened
from benchmarks.backends.verbs_device import device
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, python_module, source_tree


class Perftest:
    """``benchmarks/perftest_worker.py``; its op is ``write-lat`` (half a round trip)."""

    name = "perftest"
    label = "perftest ib_write_lat"

    def absent(self, room: Room) -> str | None:
        """Say whether there is a device, and perftest."""
        if device() is None:
            return "no verbs device"
        if shutil.which("ib_write_lat") is None:
            return "perftest is not installed"
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start the worker; it starts a pair of ib_write_lat for each job."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("one connection only")
        words = python_module("benchmarks.perftest_worker", "--device", device())
        return Opened(Driver(words, room.place("perftest") / "worker.log", source_tree()))
