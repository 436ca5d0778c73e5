"""No second copy: a store to a mapped file and msync(2), on the disk of this tree."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import BUILD, Absent, Room, Setting, compiled


class Msync:
    """``raw/msync.c``; its op is ``msync``."""

    name = "msync"
    label = "msync, local file"

    def absent(self, room: Room) -> str | None:
        """Say whether it compiles."""
        compiled("raw_msync", ("msync.c",))
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Map a file."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("one thread only")
        program = compiled("raw_msync", ("msync.c",))
        handle, name = tempfile.mkstemp(prefix="msync-", dir=BUILD)
        os.close(handle)
        driver = Driver([program, name, str(setting.pool)], room.place("msync") / "drive.log")

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()

        return Opened(driver, on_close=[remove])
