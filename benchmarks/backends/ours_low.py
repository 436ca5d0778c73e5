"""rpmem's low tier: `rpmem.create` and `Replica.persist`, librpmem's call set in Python."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

from benchmarks.backends import Opened
from benchmarks.driver import Driver
from benchmarks.room import PROJECT, Room, Setting, python_module, source_tree

#: As for the raw reference's target. With more, a contestant would still poll in another's turn.
SPIN_US = {"spin": 5_000, "sleep": 0}


def daemon(room: Room, setting: Setting, *options: str) -> str:
    """Return the command that starts our rpmemd for a setting."""
    words = [*room.pin(setting, "target"), "env", f"PYTHONPATH={PROJECT}"]
    if setting.medium == "pmem":
        words.append("PMEM_IS_PMEM_FORCE=1")
    words += [sys.executable, "-P", "-m", "rpmemd"]
    if setting.polling in SPIN_US:
        words += ["--spin-us", str(SPIN_US[setting.polling])]
    if setting.step == "read-after-write":
        words.append("--persist-apm")
    return shlex.join([*words, *options])


def environment(setting: Setting, room: Room) -> dict[str, str]:
    """Return the initiator's environment variables."""
    variables = {**source_tree(), "RPMEM_PROVIDER": room.provider, "RPMEM_LAUNCHER": "openssh"}
    if setting.polling in SPIN_US:
        variables["RPMEM_SPIN_US"] = str(SPIN_US[setting.polling])
    if setting.medium == "pmem":
        variables["PMEM_IS_PMEM_FORCE"] = "1"
    if setting.encryption:
        variables["RPMEM_ENCRYPTION"] = setting.encryption
    return variables


def start(tier: str, room: Room, setting: Setting) -> Opened:
    """Start a worker for one of the tiers, with its targets."""
    place = room.place(tier)
    variables = {**environment(setting, room), "RPMEM_BENCH_PLACE": str(place)}
    targets: list[str] = []
    commands: list[str] = []
    for index in range(setting.replicas):
        sets: Path = place / f"target{index}"
        sets.mkdir()
        if setting.ssh:
            sshd = room.sshd()
            variables["RPMEM_SSH"] = str(sshd.ssh)
            targets.append(f"127.0.0.1:{sshd.port}")
            commands.append(daemon(room, setting, "--poolset-dir", str(sets)))
        elif setting.over == "tcp":
            variables["RPMEM_SSH"] = str(room.no_ssh())
            targets.append("127.0.0.1")
            commands.append(daemon(room, setting, "--poolset-dir", str(sets)))
        else:
            targets.append(f"local:{sets}")
            commands.append(daemon(room, setting))
    words = python_module(
        "benchmarks.worker",
        "--tier",
        tier,
        "--pool",
        setting.pool,
        "--lanes",
        setting.lanes,
        "--step",
        setting.step,
        "--command",
        commands[0],
        "--targets",
        *targets,
    )
    words = [*room.pin(setting, "initiator"), *words]
    return Opened(Driver(words, place / "worker.log", variables))


class OursLow:
    """Ops: those of ``benchmarks/worker.py``."""

    name = "low"
    label = "rpmem, low tier"

    def absent(self, room: Room) -> str | None:
        """Say whether the compiled parts are there."""
        # Not imported: libfabric's libraries would take over this process's signals.
        for name in ("rpmem._core", "rpmem.fabric.libfabric.fabric"):
            if importlib.util.find_spec(name) is None:
                return f"{name} is not built (make build)"
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start it."""
        return start("low", room, setting)
