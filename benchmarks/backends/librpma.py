"""librpma, PMDK's later library for RDMA only, if there is a verbs device."""

from __future__ import annotations

import json

from benchmarks.backends import Opened
from benchmarks.backends.verbs_device import address
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, compiled, first_line, serve

SOURCES = ("rpma.c", "verbs.c")
PACKAGES = ("librpma", "librdmacm", "libibverbs")


class Librpma:
    """``raw/rpma.c``; ops write-flush and read."""

    name = "librpma"
    label = "librpma"

    def absent(self, room: Room) -> str | None:
        """Say whether there is a device with an address, and the library."""
        if address() is None:
            return "no verbs device"
        compiled("raw_rpma", SOURCES, PACKAGES)
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start both ends."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("one connection only")
        program = compiled("raw_rpma", SOURCES, PACKAGES)
        place = room.place("librpma")
        where = str(address())
        words = [*room.pin(setting, "target"), program, "serve", where, setting.pool]
        words += ["-", 0, "none", 5000]
        server = serve(words, place / "serve.log", {})
        try:
            port = json.loads(first_line(server, place / "serve.log"))["port"]
            words = [*room.pin(setting, "initiator"), program]
            words += ["drive", where, port, setting.pool]
            driver = Driver(words, place / "drive.log")
        except BaseException:
            server.kill()
            server.wait()
            raise
        return Opened(driver, [server])
