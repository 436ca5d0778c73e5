"""Plain TCP: data one way and eight bytes back, without a fabric or durability."""

from __future__ import annotations

import json

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, compiled, first_line, serve


class RawTcp:
    """``raw/sockets.c``; its op is ``send``."""

    name = "tcp"
    label = "TCP ping-pong"

    def absent(self, room: Room) -> str | None:
        """Say whether it compiles."""
        compiled("raw_sockets", ("sockets.c",))
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start both ends."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("one connection only")
        program = compiled("raw_sockets", ("sockets.c",))
        place = room.place("tcp")
        wait = ["--wait"] if setting.polling == "sleep" else []
        server = serve(
            [*room.pin(setting, "target"), program, "serve", *wait], place / "serve.log", {}
        )
        try:
            port = json.loads(first_line(server, place / "serve.log"))["port"]
            words = [*room.pin(setting, "initiator"), program, "drive", "--port", port, *wait]
            driver = Driver(words, place / "drive.log")
        except BaseException:
            server.kill()
            server.wait()
            raise
        return Opened(driver, [server])
