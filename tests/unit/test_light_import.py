"""What `import rpmem` and the start of rpmemd must not drag in."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

HEAVY_MODULES = ("numpy", "paramiko", "click", "rich", "cryptography", "rpmem._libfabric")
HEAVY_LIBRARIES = ("libfabric.so", "libibverbs.so", "librdmacm.so", "libpsm2.so")
REPORT = """
import sys
{statement}
print(*sys.modules)
print(open("/proc/self/maps").read())
"""


def loaded_by(statement: str) -> tuple[set[str], str]:
    """Return the modules and the memory map of a fresh process after the statement."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(statement=statement)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    modules, _, maps = done.stdout.partition("\n")
    return set(modules.split()), maps


@pytest.mark.parametrize("module", ["rpmem", "rpmemd.__main__", "rpmem.fabric"])
def test_import_is_light(module: str) -> None:
    package = module.split(".")[0]
    assert importlib.util.find_spec(package) is not None
    modules, maps = loaded_by(f"import {module}")
    assert modules.isdisjoint(HEAVY_MODULES)
    assert not [library for library in HEAVY_LIBRARIES if library in maps]


def test_this_test_sees_what_is_heavy() -> None:
    modules, _ = loaded_by("import numpy")
    assert "numpy" in modules
    if importlib.util.find_spec("rpmem._libfabric") is None:
        pytest.skip("rpmem._libfabric is not built here")
    modules, maps = loaded_by("import rpmem.fabric; rpmem.fabric.load()")
    assert "rpmem._libfabric" in modules
    assert "libfabric.so" in maps
