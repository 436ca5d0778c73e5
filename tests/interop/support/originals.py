"""The originals, as ``make peers`` left them, and our C programs built against them."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from tests.support.preload import shim

PROJECT = Path(__file__).resolve().parents[3]
SOURCES = Path(__file__).resolve().parents[1] / "peers"
ABSENT = "PMDK's originals are not here (make peers brings them)"


class OriginalsAbsent(Exception):
    """The peers folder is empty, or the C programs cannot be built here."""


@dataclass(frozen=True)
class Originals:
    """Where the originals and the programs built against them are."""

    folder: Path
    programs: Path

    @property
    def libraries(self) -> Path:
        """The folder with librpmem.so.1 and its kin."""
        return next(self.folder.glob("root/usr/lib/*-linux-gnu*"))

    @property
    def rpmemd(self) -> Path:
        """The original daemon (a wrapper that finds its libraries)."""
        return self.programs / "bin" / "rpmemd"

    @property
    def pmempool(self) -> Path:
        """The original pool tool, able to do remote replicas."""
        return self.programs / "bin" / "pmempool"

    def environment(self, **more: str) -> dict[str, str]:
        """Return an environment in which programs find the original libraries."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.libraries),
            "LD_PRELOAD": quick_start(),
            **more,
        }

    def run_pmempool(
        self,
        *arguments: str | Path,
        environment: dict[str, str] | None = None,
        answer: str = "",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run pmempool; its status is for the caller to judge."""
        return subprocess.run(
            [str(self.pmempool), *map(str, arguments)],
            env=environment or self.environment(),
            input=answer,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def pool_info(self, path: Path) -> dict[str, str]:
        """Return what ``pmempool info`` prints of the first header, field by field."""
        result = self.run_pmempool("info", "-f", "obj", path)
        if result.returncode != 0:
            raise AssertionError(f"pmempool info: {result.stdout}{result.stderr}")
        return info_fields(result.stdout)


def quick_start() -> str:
    """Return what LD_PRELOAD has to name for libfabric to start without its waits.

    They cost 300 ms in every process that asks it something; see
    ``rpmem.fabric.libfabric.startup``, which does without them in its own way.
    """
    fabric = PROJECT / "rpmem" / "fabric" / "libfabric"
    stand_ins = (fabric / f"{name}{EXTENSION_SUFFIXES[0]}" for name in ("no_psm", "no_psm2"))
    found = [shim("no_kallsyms"), *(path for path in stand_ins if path.exists())]
    before = os.environ.get("LD_PRELOAD")
    return ":".join([*map(str, found), *([before] if before else [])])


def write_wrappers(folder: Path, programs: Path) -> None:
    """Write bin/rpmemd and bin/pmempool: the originals' own, with a quick start."""
    (programs / "bin").mkdir(exist_ok=True)
    for name in ("rpmemd", "pmempool"):
        made = programs / "bin" / f"{name}.{os.getpid()}"
        made.write_text(
            f"#!/bin/sh\nLD_PRELOAD={shlex.quote(quick_start())}${{LD_PRELOAD:+:$LD_PRELOAD}}\n"
            f'export LD_PRELOAD\nexec {shlex.quote(str(folder / "bin" / name))} "$@"\n'
        )
        made.chmod(0o755)
        made.replace(programs / "bin" / name)


def info_fields(text: str) -> dict[str, str]:
    """Parse ``Name : value`` lines; of a name that comes twice the first counts."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        found = re.match(r"(\S[^:]*?)\s*: (.*)$", line)
        if found:
            fields.setdefault(found[1], found[2].strip())
    return fields


def peers_folder() -> Path:
    """Ask scripts/peers where it puts things."""
    script = PROJECT / "scripts" / "peers"
    shown = subprocess.run(
        [sys.executable, str(script), "--print-dir"], capture_output=True, text=True, check=True
    )
    return Path(shown.stdout.strip())


def find_originals() -> Originals:
    """Find the peers and build the C programs that are out of date."""
    folder = peers_folder()
    if not (folder / "stamp").is_file():
        raise OriginalsAbsent(ABSENT)
    compiler = shlex.split(os.environ.get("CC", "cc"))[0]
    if shutil.which("make") is None or shutil.which(compiler) is None:
        raise OriginalsAbsent("the programs against PMDK's libraries need make and a C compiler")
    programs = PROJECT / "build" / "interop"
    programs.mkdir(parents=True, exist_ok=True)
    with (programs / "lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = subprocess.run(
            ["make", "-s", "-C", str(SOURCES), f"PEERS={folder}", f"OUT={programs}"],
            capture_output=True,
            text=True,
            check=False,
        )
    if built.returncode != 0:
        raise RuntimeError(f"the C programs do not compile:\n{built.stdout}{built.stderr}")
    write_wrappers(folder, programs)
    return Originals(folder, programs)
