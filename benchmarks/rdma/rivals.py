"""The contestants over RDMA, with their two ends on two hosts; see `benchmarks.backends`."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.backends import Backend, Opened
from benchmarks.backends.librpma import PACKAGES, SOURCES
from benchmarks.backends.ours_low import SPIN_US, daemon, environment
from benchmarks.driver import Driver
from benchmarks.rdma.counting import Counters
from benchmarks.rdma.hosts import Hosts
from benchmarks.room import (
    Absent,
    Room,
    Setting,
    compiled,
    first_line,
    python_module,
    serve,
    source_tree,
)

_RAW = ("verbs_drive.c", "verbs_serve.c", "verbs.c")


@dataclass
class _Rival:
    """The base of all rivals.

    Attributes
    ----------
    hosts : Hosts
    counters : Counters, optional
        Count the requests to the devices.
    """

    hosts: Hosts
    counters: Counters | None = None

    def variables(self, side: str) -> dict[str, str]:
        return self.counters.variables(side) if self.counters is not None else {}

    def absent(self, room: Room) -> str | None:
        """Say whether it cannot be built."""
        return None


class Ours(_Rival):
    """rpmem's low tier over its own verbs fabric; ops of ``benchmarks/worker.py``."""

    name = "low"
    label = "rpmem, low tier"

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start a session."""
        place = room.place("low")
        self.hosts.pool_set(place, setting)
        told = [f"{name}={value}" for name, value in self.variables("target").items()]
        # "pmem" there makes memory count as persistent; here the memory itself decides.
        plain = replace(setting, medium="memory")
        command = shlex.join(["env", *told]) + " "
        command += daemon(room, plain, "--poolset-dir", str(place))
        words = python_module(
            "benchmarks.worker",
            *("--tier", "low", "--pool", setting.pool, "--lanes", setting.lanes),
            *("--step", setting.step, "--command", command, "--parts", 0),
            *("--targets", self.hosts.target),
        )
        variables = {
            **environment(plain, room),
            **self.variables("initiator"),
            "RPMEM_SSH": str(self.hosts.ssh(place)),
        }
        words = [*room.pin(setting, "initiator"), *words]
        return Opened(Driver(words, place / "worker.log", variables))


class _Program(_Rival):
    """A C program that contains both ends: ``PROGRAM serve`` and ``PROGRAM drive``."""

    name: str

    def program(self) -> Path:
        raise NotImplementedError

    def absent(self, room: Room) -> str | None:
        """Say whether it cannot be built."""
        self.program()
        return None

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start both ends."""
        if setting.lanes != 1 or setting.replicas != 1:
            raise Absent("one connection only")
        place, program, where = room.place(self.name), self.program(), self.hosts.target
        words = [*self.hosts.enter, *room.pin(setting, "target"), program, "serve", where]
        words += [setting.pool, *self.hosts.memory(self.name, setting), SPIN_US["spin"]]
        server = serve(words, place / "serve.log", self.variables("target"))
        try:
            port = json.loads(first_line(server, place / "serve.log"))["port"]
            words = [*room.pin(setting, "initiator"), program, "drive", where, port, setting.pool]
            driver = Driver(words, place / "drive.log", self.variables("initiator"))
        except BaseException:
            server.kill()
            server.wait()
            raise
        return Opened(driver, [server])


class RawVerbs(_Program):
    """``raw/verbs_drive.c``; ops write-flush, write-read, write-send, send-data, read."""

    name = "verbs"
    label = "raw C, libibverbs"

    def program(self) -> Path:
        return compiled("raw_verbs", _RAW, ("librdmacm", "libibverbs"))


class Librpma(_Program):
    """``raw/rpma.c``; the same ops."""

    name = "librpma"
    label = "librpma"

    def program(self) -> Path:
        return compiled("raw_rpma", SOURCES, PACKAGES)


class Perftest(_Rival):
    """A pair of ib_write_lat or ib_read_lat for each job; ops write-lat, read-lat."""

    name = "perftest"
    label = "perftest"

    def absent(self, room: Room) -> str | None:
        """Say whether it is installed."""
        return None if shutil.which("ib_write_lat") else "perftest is not installed"

    def open(self, room: Room, setting: Setting) -> Opened:
        """Start the worker."""
        words = python_module("benchmarks.perftest_worker", "--address", self.hosts.target)
        words += ["--server", shlex.join([*self.hosts.enter, *room.pin(setting, "target")])]
        client = [f"{name}={value}" for name, value in self.variables("initiator").items()]
        client = ["env", *client, *room.pin(setting, "initiator")]
        words += ["--client", shlex.join(client)]
        return Opened(Driver(words, room.place("perftest") / "worker.log", source_tree()))


def rivals(hosts: Hosts, counters: Counters | None = None) -> dict[str, Backend]:
    """Return every contestant by name, ours first."""
    every: list[Backend] = [one(hosts, counters) for one in (Ours, RawVerbs, Librpma, Perftest)]
    return {one.name: one for one in every}
