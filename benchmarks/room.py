"""The surroundings of a run: its folders, the programs it builds, and external servers."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = PROJECT / "benchmarks" / "raw"
BUILD = PROJECT / "build" / "benchmarks"
MIB = 1 << 20


class Absent(Exception):
    """A rival cannot take part here; the text says why."""


@dataclass(frozen=True)
class Setting:
    """How a contestant is set up; a rival that does not support a setting raises `Absent`.

    Attributes
    ----------
    pool : int
        Bytes of the pool.
    lanes : int
        Connections; as many threads can work at the same time.
    polling : {"spin", "auto", "sleep"}
        Both sides poll; poll for a limited time, then sleep; sleep immediately.
    medium : {"memory", "pmem"}
        The target's pool is on tmpfs; treat it as plain memory, or as persistent memory.
    step : str
        The durability step, if there is a choice.
    replicas : int
        How many targets.
    ssh : bool
        Start the target through a real ssh server, not as a child process.
    over : {"", "tcp", "pair"}
        TCP, for which the target must not be ``local:``, or a pair of sockets, for which it must.
    encryption : {"", "on", "off"}
        Of the lanes, where there is a choice.
    """

    pool: int = 64 * MIB
    lanes: int = 1
    polling: str = "spin"
    medium: str = "memory"
    step: str = "auto"
    replicas: int = 1
    ssh: bool = False
    over: str = ""
    encryption: str = ""


@dataclass
class Room:
    """The folders of one run, on tmpfs or where `parent` says, and the servers it has started."""

    provider: str = "tcp"
    pinned: bool = True
    parent: Path | None = None
    folder: Path = field(init=False)
    _serial: int = 0

    def __post_init__(self) -> None:
        shm = Path("/dev/shm")
        parent = self.parent
        if parent is None and shm.is_dir() and os.access(shm, os.W_OK):
            parent = shm
        self.folder = Path(tempfile.mkdtemp(prefix="rpmem-bench-", dir=parent))
        self.on_tmpfs = parent == shm
        self._sshd: object | None = None

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sshd is not None:
            self._sshd.stop()  # type: ignore[attr-defined]
        shutil.rmtree(self.folder, ignore_errors=True)

    def pin(self, setting: Setting, side: str) -> list[str]:
        """Return the words that pin a side of a contestant to a separate processor.

        Otherwise two polling processes may share one, each waiting for the other's time slice to
        end. Only used if there is one process on each side, so not with ssh.
        """
        processors = sorted(os.sched_getaffinity(0))
        alone = setting.lanes == 1 and setting.replicas == 1 and not setting.ssh
        if not self.pinned or not alone or len(processors) < 2 or shutil.which("taskset") is None:
            return []
        which = {"initiator": processors[0], "target": processors[1]}[side]
        return ["taskset", "-c", str(which)]

    def place(self, name: str) -> Path:
        """Return a new folder of this run."""
        self._serial += 1
        path = self.folder / f"{name}-{self._serial}"
        path.mkdir()
        return path

    def sshd(self):
        """Return a running ssh server of our own on loopback."""
        if self._sshd is None:
            from tests.support.sshd import Sshd, SshdAbsent

            try:
                self._sshd = Sshd(self.place("sshd")).start()
            except SshdAbsent as error:
                raise Absent(str(error)) from error
        return self._sshd

    def no_ssh(self) -> Path:
        """Return a replacement for ssh, which runs the command on this machine.

        Only the start differs; the measured operations do not pass through ssh.
        """
        script = self.folder / "no-ssh"
        if not script.exists():
            script.write_text(
                "#!/bin/sh\n"
                "# the command is the last argument; rpmemd listens on the third word of this\n"
                "for word; do command=$word; done\n"
                'SSH_CONNECTION="127.0.0.1 1 127.0.0.1 22" exec /bin/sh -c "exec $command"\n'
            )
            script.chmod(0o755)
        return script


@functools.cache
def compiled(
    name: str, sources: tuple[str, ...], packages: tuple[str, ...] = (), flags: tuple[str, ...] = ()
) -> Path:
    """Compile a program of ``raw/`` if it is out of date, and return its path.

    Raises
    ------
    Absent
        There is no compiler, or a library's development files are missing.
    """
    program = BUILD / name
    inputs = [SOURCES / source for source in sources]
    newest = max(path.stat().st_mtime for path in [*inputs, *SOURCES.glob("*.h")])
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise Absent(f"no C compiler ({compiler[0]})")
    found: list[str] = []
    if packages:
        asked = subprocess.run(
            ["pkg-config", "--cflags", "--libs", *packages],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode:
            raise Absent(f"pkg-config does not know {' '.join(packages)}")
        found = asked.stdout.split()
    BUILD.mkdir(parents=True, exist_ok=True)
    # Another process may be about to run the one that is there.
    fresh = BUILD / f"{name}.{os.getpid()}"
    command = [*compiler, "-O2", "-g", "-Wall", "-Wextra", "-pthread", "-o", str(fresh)]
    result = subprocess.run(
        [*command, *map(str, inputs), *flags, *found], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise Absent(f"{name} does not compile: {result.stderr.strip()[-300:]}")
    return fresh.replace(program)


def python_module(name: str, *arguments: object) -> list[str]:
    """Return the command that runs a module of this tree with this interpreter."""
    return [sys.executable, "-P", "-m", name, *map(str, arguments)]


def source_tree() -> dict[str, str]:
    """Return the variables with which a child finds this tree's modules."""
    rest = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(PROJECT), *([rest] if rest else [])])}


def first_line(process: subprocess.Popen[bytes], log: Path) -> bytes:
    """Return the first line a server prints.

    Raises
    ------
    Absent
        The server ended instead.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(10)
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise Absent(f"{Path(str(process.args[0])).name} ended: {last[0]}")  # type: ignore[index]
    return line


def serve(words: Sequence[object], log: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a server that prints where it listens, and ends with its standard input."""
    with log.open("ab") as stream:
        return subprocess.Popen(
            list(map(str, words)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**os.environ, **variables},
        )
