"""A fabric that completes everything immediately, which leaves only the cost of a call."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from benchmarks.room import BUILD, PROJECT, Absent

_SOURCE = Path(__file__).with_name("_instant.pyx")


def load() -> ModuleType:
    """Compile ``_instant.pyx`` against the core's own declarations, and import it.

    Raises
    ------
    Absent
        It does not compile.
    """
    name = "benchmarks.instant._instant"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    library = BUILD / f"_instant{suffix}"
    newest = max(path.stat().st_mtime for path in [_SOURCE, *(PROJECT / "rpmem").rglob("*.pxd")])
    if not library.exists() or library.stat().st_mtime < newest:
        BUILD.mkdir(parents=True, exist_ok=True)
        translated = BUILD / "_instant.c"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        include = f"-I{sysconfig.get_path('include')}"
        cython = [sys.executable, "-m", "cython", "-3", "-I", str(PROJECT), "--module-name", name]
        for command in (
            [*cython, str(_SOURCE), "-o", str(translated)],
            [*compiler, "-O2", "-shared", "-fPIC", include, str(translated), "-o", str(library)],
        ):
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise Absent(f"the instant fabric does not compile: {result.stderr[-300:]}")
    loader = importlib.machinery.ExtensionFileLoader(name, str(library))
    spec = importlib.util.spec_from_file_location(name, library, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
