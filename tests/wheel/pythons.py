"""The CPythons on this machine for which there is to be a wheel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: The versions that rpmem supports.
VERSIONS = ("3.11", "3.12", "3.13")

_ASK = """
import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
if sys.implementation.name == "cpython" and os.path.exists(header) and not free_threaded:
    print("%d.%d" % sys.version_info[:2])
"""


def found() -> dict[str, Path]:
    """Return one Python for each version that is here with its headers."""
    pythons: dict[str, Path] = {}
    for version, path in every():
        pythons.setdefault(version, path)
    return pythons


def every() -> Iterator[tuple[str, Path]]:
    """Yield the version and the place of each Python that is here with its headers."""
    known = set()
    for version in VERSIONS:
        for path in _candidates(version):
            real = path.resolve()
            if real not in known and _version_of(path) == version:
                known.add(real)
                yield version, path


def _candidates(version: str) -> Iterator[Path]:
    """Yield where a version may be: the system's, then those of pyenv and uv."""
    home = Path.home()
    folders = [Path("/usr/bin"), Path("/usr/local/bin")]
    for place in (
        Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python")),
    ):
        folders += sorted(place.glob(f"*{version}*/bin"))
    for folder in folders:
        path = folder / f"python{version}"
        if os.access(path, os.X_OK):
            yield path


def _version_of(python: Path) -> str:
    done = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
