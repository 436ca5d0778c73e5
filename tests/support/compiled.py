"""Compiled helpers of the tests: built on demand next to their sources, not part of the package.

``python -m tests.support.compiled`` builds all of them, for machines without a compiler.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_HERE = ROOT / "tests" / "support"
_DEBUG = ROOT / "debug-build"

_BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

name, *flags = sys.argv[1:]
extension = Extension(
    f"tests.support.{name}",
    [f"tests/support/{name}.pyx"],
    include_dirs=["."],
    extra_compile_args=flags,
    extra_link_args=flags,
)
made = cythonize([extension], build_dir="build/cython", quiet=True, emit_linenums=bool(flags))
command = build_ext(Distribution({"ext_modules": made, "packages": []}))
command.inplace = True
command.build_temp = "build/temp.tests"
command.ensure_finalized()
command.run()
"""


def compiled(name: str) -> Any:
    """Return the module ``tests.support.NAME``, built when it is missing or older than its parts.

    Parameters
    ----------
    name : str
        Of a ``.pyx`` file beside this one.
    """
    build(name)
    return import_module(f"tests.support.{name}")


def build(name: str) -> None:
    """Build ``tests.support.NAME`` where that is necessary, and what it is made with."""
    for other in _made_with(name):
        build(other)
    if _is_fresh(name):
        return
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / ".lock.tests", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_fresh(name):
            return
        words = [sys.executable, "-c", _BUILD, name, *debug_flags()]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name} was not built: {done.stderr[-3000:]}")
        # What did not have to be made anew is as good as new, and not to be asked for again.
        for built in _HERE.glob(f"{name}.*.so"):
            os.utime(built)


def _made_with(name: str) -> list[str]:
    """Return the other helpers that it imports as compiled parts do."""
    source = (_HERE / f"{name}.pyx").read_text()
    return re.findall(r"^from tests\.support\.(\w+) cimport", source, re.M)


def debug_flags() -> list[str]:
    """Return more flags to compile with: those of the debug build in its copy of the tree."""
    return _DEBUG.read_text().split() if _DEBUG.exists() else []


def _is_fresh(name: str) -> bool:
    built = list(_HERE.glob(f"{name}.*.so"))
    # What it is laid out by: any of the pages may have changed.
    sources = [_HERE / f"{name}.pyx"]
    for folder in ("rpmem", "rpmemd", "tests/support"):
        sources += ROOT.glob(f"{folder}/**/*.pxd")
    newest = max(each.stat().st_mtime for each in sources)
    return bool(built) and built[0].stat().st_mtime >= newest


if __name__ == "__main__":
    for source in sorted(_HERE.glob("*.pyx")):
        build(source.stem)
