"""The project, built for the guests' userland."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.rdma.bench import userland
from tests.rdma.bench.report import BenchError, show, step

ROOT = Path(__file__).resolve().parents[3]
# Beside the other things that are built: `make clean` takes it away.
FOLDER = ROOT / "build" / "bench"
_TREE, _STAGE = FOLDER / "project", FOLDER / "stage"
# All that tests look at, and what they need to be built.
_PIECES = (
    *(
        "rpmem",
        "rpmemd",
        "third_party",
        "tests",
        "benchmarks",
        "examples",
        "docs",
        "scripts",
        ".ci",
    ),
    *("setup.py", "pyproject.toml", "Makefile", "README.md", "CONTRIBUTING.md", "LICENSE"),
)
# Pages are the same everywhere.
_NATIVE_TESTS = ("tests/unit", "tests/integration", "--ignore=tests/integration/test_readme.py")
_LEFT_OUT = (".so", ".pyc")


# PMDK's originals, where `make peers` has brought them: beside the project in the guest.
_PEERS = "peers"


def build(root: Path) -> Path:
    """Copy the project's sources, build them inside the userland, return an image of that.

    Parameters
    ----------
    root : Path
        The userland.
    """
    _TREE.mkdir(parents=True, exist_ok=True)
    changed = _update()
    with step(f"project: building ({changed} files changed since the last time)"):
        python = ["/usr/bin/python3", "setup.py", "--quiet", "build_ext", "--inplace", "-j2"]
        userland.within(root, python, project=_TREE)
        python = ["/usr/bin/python3", "-P", "-m", "tests.support.compiled"]
        userland.within(root, python, project=_TREE, environment={"PYTHONPATH": "/project"})
        # The guest would compile them again at every start.
        python = ["/usr/bin/python3", "-m", "compileall", "-q", "rpmem", "rpmemd"]
        userland.within(root, python, project=_TREE)
    with step("project: making it a disk"):
        shutil.rmtree(_STAGE, ignore_errors=True)
        _STAGE.mkdir()
        for piece in (*_PIECES, *_originals(root)):
            if (_TREE / piece).is_dir():
                shutil.copytree(_TREE / piece, _STAGE / piece, symlinks=True, copy_function=os.link)
            else:
                os.link(_TREE / piece, _STAGE / piece)
        image = FOLDER / "disk"
        userland.image(root, _STAGE, image)
    return image


def _originals(root: Path) -> tuple[str, ...]:
    """Copy PMDK's originals, and build the C program that calls librpmem; () without them."""
    shown = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "peers"), "--print-dir"],
        capture_output=True,
        text=True,
        check=True,
    )
    brought = Path(shown.stdout.strip())
    copy = _TREE / _PEERS
    shutil.rmtree(copy, ignore_errors=True)
    if not (brought / "stamp").is_file():
        return ()
    shutil.copytree(brought / "root", copy, symlinks=True)
    libraries = next(copy.glob("usr/lib/*-linux-gnu")).relative_to(_TREE)
    (copy / "lib").symlink_to(libraries.relative_to(_PEERS))
    command = ["/usr/bin/gcc", "-O2", "-std=gnu11", "-pthread", "-w", f"-L{libraries}"]
    command += [f"-Wl,-rpath-link,{libraries}", "-isystem", f"{_PEERS}/usr/include"]
    command += ["-o", f"{_PEERS}/rpmem_client", "tests/interop/peers/rpmem_client.c", "-lrpmem"]
    userland.within(root, command, project=_TREE)
    return (_PEERS,)


def test(root: Path) -> bool:
    """Run the project's ordinary tests in the userland, at this machine's speed.

    Parameters
    ----------
    root : Path
        The userland.

    Returns
    -------
    bool
        Whether all of them passed.
    """
    scratch = _TREE / "build" / "scratch"
    python = ["/usr/bin/python3", "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    python += ["--basetemp", f"/project/{scratch.relative_to(_TREE)}", *_NATIVE_TESTS]
    with step(f"the ordinary tests in {userland.SUITE}'s userland, without a guest"):
        try:
            variables = {"PYTHONPATH": "/project", "HOME": "/tmp"}
            userland.within(root, python, project=_TREE, environment=variables, output=show)
        except BenchError:
            return False
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return True


def _sources() -> Iterator[Path]:
    for piece in _PIECES:
        found = ROOT / piece
        for path in [found] if found.is_file() else sorted(found.rglob("*")):
            if path.is_file() and path.suffix not in _LEFT_OUT:
                yield path.relative_to(ROOT)


def _update() -> int:
    """Make the copy equal to the sources; built files stay. Return how many files changed."""
    changed = 0
    wanted = set(_sources())
    for path in wanted:
        copy = _TREE / path
        if copy.exists() and filecmp.cmp(ROOT / path, copy, shallow=False):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy)
        changed += 1
    for piece in _PIECES:
        for path in (_TREE / piece).rglob("*"):
            gone = path.relative_to(_TREE) not in wanted
            if gone and path.is_file() and path.suffix not in _LEFT_OUT:
                os.unlink(path)
                changed += 1
    return changed
