"""The lower limit: bare C over the same libfabric provider."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.backends import Opened
from benchmarks.backends.verbs_device import address
from benchmarks.driver import Driver
from benchmarks.room import Absent, Room, Setting, compiled, first_line, serve

#: Largest data behind the header of a SEND; larger needs messages of that size on both sides.
INLINE_LIMIT = 1 << 20
SPIN_US = 5000


def programs() -> tuple[Path, Path]:
    """Return the target's and the initiator's program."""
    return (
        compiled("raw_serve", ("serve.c", "fabric.c"), ("libfabric",)),
        compiled("raw_drive", ("drive.c", "fabric.c"), ("libfabric",)),
    )


class RawLibfabric:
    """``raw/serve.c`` and ``raw/drive.c``; its ops are the names of exchanges."""

    name = "raw"
    label = "raw C, libfabric"

    def absent(self, room: Room) -> str | None:
        """Say whether it compiles."""
        programs()
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start the target, then the initiator."""
        if setting.replicas != 1:
            raise Absent("the raw reference has one target")
        server_program, client_program = programs()
        place = room.place("raw")
        # On loopback, look only for the chosen provider.
        variables = {"FI_PROVIDER": room.provider}
        host = address() if room.provider.startswith("verbs") else "127.0.0.1"
        if host is None:
            raise Absent("no verbs device")
        common = ["--host", host]
        common += ["--provider", room.provider, "--lanes", setting.lanes, "--pool", setting.pool]
        common += ["--inline", min(INLINE_LIMIT, setting.pool)]
        if setting.polling == "sleep":
            common += ["--wait"]
        # a blocking thread can serve only one lane
        serving = setting.lanes if setting.polling == "sleep" else 1
        persist = "pmem" if setting.medium == "pmem" else "none"
        server = serve(
            [
                *room.pin(setting, "target"),
                server_program,
                *common,
                "--file",
                place / "pool",
                "--persist",
                persist,
                "--threads",
                serving,
                "--recv-depth",
                1,
                "--spin-us",
                SPIN_US,
            ],
            place / "serve.log",
            variables,
        )
        try:
            port = json.loads(first_line(server, place / "serve.log"))["port"]
            driver = Driver(
                [*room.pin(setting, "initiator"), client_program, *common, "--port", port],
                place / "drive.log",
                variables,
            )
        except BaseException:
            server.kill()
            server.wait()
            raise
        return Opened(driver, [server])
