"""Python programs that run with a preloaded C library of the tests."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
PROJECT = _HERE.parent.parent


def shim(name: str) -> Path:
    """Return a shared library made of ``tests/support/NAME.c``; skips without a compiler."""
    source = _HERE / f"{name}.c"
    built = PROJECT / "build" / "preload" / f"{name}.so"
    if built.exists() and built.stat().st_mtime > source.stat().st_mtime:
        return built
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{name} needs a C compiler")
    built.parent.mkdir(parents=True, exist_ok=True)
    # Under a name of its own first: other tests may be looking for it at the same time.
    made = built.with_suffix(f".{os.getpid()}")
    subprocess.run(
        [*compiler, "-O1", "-g", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", made, source],
        check=True,
    )
    os.replace(made, built)
    return built


def run_with(name: str | None, program: str, *arguments: Any, timeout_s: float = 60.0) -> str:
    """Run a Python program with a shim, or none; return what it printed. It must end with 0."""
    environment = dict(os.environ)
    if name is not None:
        environment["LD_PRELOAD"] = str(shim(name))
    environment["PYTHONPATH"] = os.pathsep.join([str(PROJECT), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
