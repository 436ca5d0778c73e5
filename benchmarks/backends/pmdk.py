"""PMDK: the original librpmem and rpmemd, as built by ``make peers``, over ``sockets``.

The original has no provider tcp; on a machine without RDMA hardware it offers sockets, and blocks
in the provider where verbs would poll. It is not pinned to processors, as its sides do not compete
for one.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import PROJECT, Absent, Room, Setting, compiled


def peers() -> Path:
    """Return the folder with the originals."""
    shown = subprocess.run(
        [sys.executable, str(PROJECT / "scripts" / "peers"), "--print-dir"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(shown.stdout.strip())
    if not (folder / "stamp").is_file():
        raise Absent("PMDK's originals are not here (make peers brings them)")
    return folder


def program() -> tuple[Path, Path]:
    """Return the timing client and the folder of the original libraries."""
    root = peers() / "root"
    libraries = next(root.glob("usr/lib/*-linux-gnu*"))
    flags = (
        "-isystem",
        str(root / "usr" / "include"),
        "-Wl,--allow-shlib-undefined",
        f"-L{libraries}",
        "-lrpmem",
    )
    return compiled("pmdk_client", ("pmdk.c",), (), flags), libraries


class Pmdk:
    """``raw/pmdk.c``: ops persist, persist-relaxed, flush-drain, persist-each, read, life cycle."""

    name = "pmdk"
    label = "librpmem (PMDK 1.10)"

    def absent(self, room: Room) -> str | None:
        """Say whether the originals are here."""
        program()
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start the initiator; it starts its rpmemd with the first job."""
        if setting.replicas != 1:
            raise Absent("librpmem replicates to one target")
        if setting.polling == "spin" and setting.lanes > 16:
            raise Absent("the sockets provider has 16 lanes at most")
        client, libraries = program()
        place = room.place("pmdk")
        sets = place / "sets"
        sets.mkdir()
        # The part has the pool's size: librpmem refuses smaller ones, not larger ones.
        (sets / "bench.set").write_text(f"PMEMPOOLSET\n{setting.pool} {place}/part0\n")
        words = [str(peers() / "bin" / "rpmemd"), "--poolset-dir", str(sets), "--log-file"]
        words.append(str(place / "rpmemd.log"))
        if setting.step == "read-after-write":
            words.append("--persist-apm")
        if setting.medium == "pmem" or setting.step == "read-after-write":
            words = ["env", "PMEM_IS_PMEM_FORCE=1", *words]
        variables = {
            "LD_LIBRARY_PATH": str(libraries),
            "RPMEM_CMD": shlex.join(words),
            "RPMEM_ENABLE_SOCKETS": "1",
            "RPMEM_ENABLE_VERBS": "0",
        }
        if setting.ssh:
            sshd = room.sshd()
            variables["RPMEM_SSH"] = str(sshd.ssh)
            target = f"127.0.0.1:{sshd.port}"
        else:
            variables["RPMEM_SSH"] = str(room.no_ssh())
            target = "127.0.0.1"
        command = [client, target, "bench.set", setting.pool, setting.lanes]
        return Opened(Driver(command, place / "client.log", variables))
