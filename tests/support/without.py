"""An installation of rpmem without some compiled parts."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Installation:
    """A folder with both packages, without some of their parts.

    Parameters
    ----------
    folder : Path
        Where to make it.
    lacking : str
        Names of parts, such as ``rpmem.memory.region``.
    broken : str
        Names of parts that are there and cannot be loaded.
    """

    def __init__(self, folder: Path, *lacking: str, broken: tuple[str, ...] = ()) -> None:
        self.folder = folder
        for package in ("rpmem", "rpmemd"):
            for path in (ROOT / package).rglob("*"):
                name = path.relative_to(ROOT)
                if path.is_dir() or "__pycache__" in name.parts:
                    continue
                part = ".".join(name.with_name(name.name.partition(".")[0]).parts)
                copy = folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                if path.suffix != ".so":
                    # No link: modules look for their neighbours where they really are.
                    copy.write_bytes(path.read_bytes())
                elif part in broken:
                    # Cut short, as the dynamic loader sees a file that it cannot load.
                    copy.write_bytes(path.read_bytes()[:64])
                elif part not in lacking:
                    copy.symlink_to(path)

    def run(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run this Python with the installation, and no other rpmem, on its path."""
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            env={**os.environ, "HOME": str(self.folder), "PYTHONPATH": str(self.folder)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            **options,  # type: ignore[call-overload]
        )


def is_built(name: str) -> bool:
    """Return whether a part is there, without importing it."""
    stem = ROOT / name.replace(".", "/")
    return any(stem.with_name(stem.name + suffix).exists() for suffix in EXTENSION_SUFFIXES)


def has_library(name: str) -> bool:
    """Return whether a library of `rpmem.base.libraries` is on this machine; it is opened."""
    from rpmem.base import libraries
    from rpmem.errors import MissingExtension

    try:
        libraries.opened(name)
    except MissingExtension:
        return False
    return True
