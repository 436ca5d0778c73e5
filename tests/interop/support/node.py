"""A target node on this machine: a pool set directory, a daemon, a log."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.interop.support.originals import PROJECT, Originals

MIB = 1 << 20
OURS = "ours"
ORIGINAL = "original"


def daemon_words(which: str, originals: Originals | None) -> list[str]:
    """Return the command that starts a daemon: the original, or ours from this tree."""
    if which == ORIGINAL:
        assert originals is not None
        return [str(originals.rpmemd)]
    return ["env", f"PYTHONPATH={PROJECT}", sys.executable, "-m", "rpmemd"]


@dataclass
class Node:
    """Pool sets and parts in a folder, and the command that starts the daemon for them.

    Parameters
    ----------
    folder : Path
        Everything of this node lives here.
    daemon : list of str
        Words that start the daemon, without options.
    host : str
        Under which name initiators reach it.
    """

    folder: Path
    daemon: Sequence[str]
    host: str = "127.0.0.1"
    options: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sets.mkdir(parents=True, exist_ok=True)
        self.parts.mkdir(exist_ok=True)
        self._names = itertools.count()

    @property
    def sets(self) -> Path:
        """The pool set directory."""
        return self.folder / "sets"

    @property
    def parts(self) -> Path:
        """Where pool sets made here keep their parts."""
        return self.folder / "parts"

    @property
    def log_file(self) -> Path:
        """The daemon's log."""
        return self.folder / "rpmemd.log"

    @property
    def log(self) -> str:
        """What the daemon has logged."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def words(self, *options: str, variables: Mapping[str, str] | None = None) -> list[str]:
        """Return the full command, word by word."""
        settings = {**self.variables, **(variables or {})}
        return [
            *(["env"] if settings else []),
            *(f"{name}={value}" for name, value in settings.items()),
            *self.daemon,
            "--poolset-dir",
            str(self.sets),
            "--log-file",
            str(self.log_file),
            "--log-level",
            "debug",
            *self.options,
            *options,
        ]

    def command(self, *options: str, variables: Mapping[str, str] | None = None) -> str:
        """Return the command as RPMEM_CMD wants it, quoted for the far side's shell."""
        return shlex.join(self.words(*options, variables=variables))

    def write_set(self, text: str, name: str | None = None) -> str:
        """Write a pool set file; returns its name."""
        name = name or f"pool{next(self._names)}.set"
        (self.sets / name).write_text(text)
        return name

    def make_set(self, *sizes: int, options: Sequence[str] = (), name: str | None = None) -> str:
        """Write a pool set with one part for each size in bytes; returns its name."""
        name = name or f"pool{next(self._names)}.set"
        lines = ["PMEMPOOLSET", *(f"OPTION {option}" for option in options)]
        stem = part_stem(name)
        lines += [f"{size} {self.parts}/{stem}.part{i}" for i, size in enumerate(sizes)]
        return self.write_set("\n".join(lines) + "\n", name)

    def part(self, name: str, index: int = 0) -> Path:
        """Return the path of a part of a set that make_set wrote."""
        return self.parts / f"{part_stem(name)}.part{index}"

    def pool_bytes(self, name: str) -> bytes:
        """Return the whole pool as the daemon lays it out: later headers left out."""
        text = (self.sets / name).read_text()
        headers = "SINGLEHDR" not in text and "NOHDRS" not in text
        paths = [Path(line.split()[1]) for line in text.splitlines() if "/" in line]
        first, *others = (path.read_bytes() for path in paths)
        whole = first[: len(first) & ~4095]
        for data in others:
            whole += data[4096 if headers else 0 : len(data) & ~4095]
        return whole


def part_stem(pool_set: str) -> str:
    """Return how the parts of a set are called; paths in pool sets hold no blanks."""
    return pool_set.removesuffix(".set").replace(" ", "-")


def initiator_environment(
    base: Mapping[str, str],
    ssh: str | os.PathLike[str],
    commands: str | Sequence[str],
    *,
    provider: str = "sockets",
    **more: str,
) -> dict[str, str]:
    """Return the environment of an initiator, ours or the original.

    Parameters
    ----------
    base : mapping
        What to start from.
    ssh : path
        What to run as ssh.
    commands : str or list of str
        RPMEM_CMD; several are taken in turn.
    provider : str
        ``sockets`` or ``verbs``; both are switched explicitly.
    more : str
        Further variables; they win.
    """
    chosen = commands if isinstance(commands, str) else "|".join(commands)
    cleaned = {name: value for name, value in base.items() if not name.startswith("RPMEM_")}
    return {
        **cleaned,
        "RPMEM_SSH": os.fspath(ssh),
        "RPMEM_CMD": chosen,
        "RPMEM_ENABLE_SOCKETS": "1" if provider == "sockets" else "0",
        "RPMEM_ENABLE_VERBS": "1" if provider == "verbs" else "0",
        **more,
    }
