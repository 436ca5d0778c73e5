"""The two hosts inside the guest, as the tests see them."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rpmem
from rpmem import PoolAttributes

ROOT = Path(__file__).resolve().parents[3]

#: What the bench says about itself; empty outside of it.
KERNEL = os.environ.get("BENCH_KERNEL", "")
INITIATOR = os.environ.get("BENCH_INITIATOR", "")
TARGET = os.environ.get("BENCH_TARGET", "")
ENTER_TARGET = os.environ.get("BENCH_ENTER_TARGET", "").split()

MEGABYTE = 1 << 20
HEADER = 4096
ATTRIBUTES = PoolAttributes(signature=b"RDMATEST", major=1, poolset_uuid=b"p" * 16, uuid=b"u" * 16)


def make_ssh(folder: Path) -> Path:
    """Write a program that stands for ssh: it starts its last argument on the target."""
    script = folder / "ssh"
    enter = " ".join(ENTER_TARGET)
    script.write_text(
        "#!/bin/sh\n"
        "for command; do :; done\n"
        "unset LD_LIBRARY_PATH\n"
        f"export SSH_CONNECTION='{INITIATOR} 40000 {TARGET} 22' PYTHONPATH={ROOT}\n"
        f'exec {enter} /bin/sh -c "$command"\n'
    )
    script.chmod(0o755)
    return script


def on_target(*command: str) -> list[str]:
    """Return a command's words so that it runs on the target."""
    return [*ENTER_TARGET, *command]


@dataclass
class Node:
    """The target: pool sets in a directory of its own, and rpmemd.

    Attributes
    ----------
    directory : Path
        Of the pool set files.
    options : list of str
        For rpmemd.
    environment : dict
        For rpmemd.
    module : str
        What is run as rpmemd.
    program : list of str
        The same, where it is not Python.
    """

    directory: Path
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    module: str = "rpmemd"
    program: list[str] = field(default_factory=list)
    replicas: list[rpmem.Replica] = field(default_factory=list)

    @contextlib.contextmanager
    def tidying(self) -> Iterator[None]:
        """End the sessions that a failed test leaves: they keep buffers and pools."""
        try:
            yield
        finally:
            for replica in self.replicas:
                if not replica.closed:
                    replica.release()
            self.replicas.clear()

    @property
    def log(self) -> Path:
        """What rpmemd said."""
        return self.directory / "rpmemd.log"

    @property
    def command(self) -> str:
        """For ``command=`` of sessions."""
        words = self.program or [sys.executable, "-P", "-m", self.module]
        words = [*words, "--poolset-dir", str(self.directory)]
        words += ["--log-file", str(self.log), "--log-level", "info", *self.options]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return shlex.join(["env", *variables, *words])

    def pool_set(self, name: str, *lines: str) -> str:
        """Write a pool set file and return its name."""
        (self.directory / name).write_text("\n".join(("PMEMPOOLSET", *lines)) + "\n")
        return name

    def create(self, name: str, buffer: Any, **options: Any) -> rpmem.Replica:
        """Create a pool here."""
        options.setdefault("attributes", ATTRIBUTES)
        return self._kept(rpmem.create, name, buffer, options)

    def open(self, name: str, buffer: Any, **options: Any) -> rpmem.Replica:
        """Open a pool here."""
        return self._kept(rpmem.open, name, buffer, options)

    def _kept(self, call: Any, name: str, buffer: Any, options: dict[str, Any]) -> rpmem.Replica:
        options = {"command": self.command, "timeout": 60, **options}
        replica: rpmem.Replica = call(TARGET, name, buffer, **options)
        self.replicas.append(replica)
        return replica
