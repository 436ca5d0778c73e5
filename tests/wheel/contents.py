"""What has to be true of a wheel."""

from __future__ import annotations

import re
import subprocess
import tempfile
import zipfile
from pathlib import Path

MOST_BYTES = 5_000_000
#: What every system with glibc has, under these very names.
_LIBC = re.compile(r"(libc|libm|libpthread|libdl|librt|ld-linux[\w-]*)\.so\.\d+")


def problems(plain: Path, wheel: Path) -> list[str]:
    """Return what is wrong with a wheel.

    Parameters
    ----------
    plain : Path
        The wheel as it was built.
    wheel : Path
        The same one, after auditwheel had it.
    """
    found = []
    if wheel.stat().st_size >= MOST_BYTES:
        found.append(f"it has {wheel.stat().st_size} bytes, {MOST_BYTES} are the limit")
    if "manylinux" not in wheel.name:
        found.append("auditwheel gives it no manylinux tag")
    with zipfile.ZipFile(plain) as before, zipfile.ZipFile(wheel) as after:
        names = set(after.namelist())
        added = {name for name in names - set(before.namelist()) if not name.endswith("/")}
        if added:
            found.append(f"auditwheel copied in {', '.join(sorted(added))}")
        found += [f"{path} is for a build, and nothing else" for path in sorted(sources(names))]
        with tempfile.TemporaryDirectory() as folder:
            for name in sorted(name for name in names if name.endswith(".so")):
                foreign = needed(Path(after.extract(name, folder)))
                if foreign:
                    found.append(f"{name} needs {', '.join(foreign)}")
        if not any(name.startswith("rpmem/_core.") for name in names):
            found.append("it has no compiled parts")
    return found


def sources(names: set[str]) -> set[str]:
    """Return what does not belong into a wheel."""
    return {name for name in names if name.endswith((".pyx", ".c", ".h"))}


def needed(library: Path) -> list[str]:
    """Return the libraries besides libc that a compiled part is linked with."""
    told = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True)
    names = re.findall(r"\(NEEDED\).*\[(.*)\]", told.stdout)
    return [name for name in names if not _LIBC.fullmatch(name)]
