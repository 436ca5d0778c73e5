"""Targets of every kind: a directory on this machine, through a child process or sshd."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rpmem
from rpmem.files.header import PoolAttributes
from rpmem.session.replica import Replica
from tests.support.media import image_of

ATTRIBUTES = PoolAttributes(
    signature=b"TESTPOOL",
    major=7,
    poolset_uuid=b"p" * 16,
    uuid=b"u" * 16,
    next_uuid=b"n" * 16,
    prev_uuid=b"v" * 16,
    user_flags=bytes(range(16)),
)


@dataclass
class Node:
    """A pool set directory on a target.

    Parameters
    ----------
    directory : Path
        Where its files are.
    target : str
        How it is reached.
    options : dict
        Of every call.
    """

    directory: Path
    target: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def local(cls, directory: Path, **options: Any) -> Node:
        """Return a directory behind a child process."""
        directory.mkdir(exist_ok=True)
        return cls(directory, f"local:{directory}", {"timeout": 30.0, **options})

    @classmethod
    def over_ssh(cls, directory: Path, host: str, launcher: str, **options: Any) -> Node:
        """Return a directory behind an sshd."""
        directory.mkdir(exist_ok=True)
        command = f"rpmemd --poolset-dir {shlex.quote(str(directory))}"
        given = {"timeout": 60.0, "launcher": launcher, "command": command, **options}
        return cls(directory, host, given)

    def create(self, buffer: Any, name: str = "a.set", **more: Any) -> Replica:
        """Create a pool, by default of one part and with attributes."""
        arguments = {"parts": 1, "attributes": ATTRIBUTES, **self.options, **more}
        return rpmem.create(self.target, name, buffer, **arguments)

    def open(self, buffer: Any, name: str = "a.set", **more: Any) -> Replica:
        """Open a pool."""
        return rpmem.open(self.target, name, buffer, **{**self.options, **more})

    def remove(self, name: str = "a.set", **more: Any) -> None:
        """Remove a pool."""
        rpmem.remove(self.target, name, **{**self.options, **more})

    def image(self, name: str = "a.set") -> bytes:
        """Return the pool as it lies in the files."""
        return image_of(self.directory / name)

    def files(self) -> list[str]:
        """Return the names of all files."""
        return sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*"))
