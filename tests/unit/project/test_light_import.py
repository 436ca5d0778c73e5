"""Modules that `import rpmem` and the start of rpmemd must not load."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.without import has_library

HEAVY_MODULES = (
    "numpy",
    "paramiko",
    "click",
    "rich",
    "cryptography",
    "rpmem.fabric.libfabric.fabric",
)
#: Of the standard library, and what the start of a session does without: each takes 1 to 10 ms.
DEAR_MODULES = (
    "argparse",
    "dataclasses",
    "hashlib",
    "inspect",
    "ipaddress",
    "logging",
    "pathlib",
    "random",
    "secrets",
    "ssl",
    "subprocess",
    "uuid",
)
HEAVY_LIBRARIES = ("libfabric.so", "libibverbs.so", "librdmacm.so", "libpsm2.so")
# An interpreter may come with modules and libraries of its own: what counts is what is added.
REPORT = """
import sys
def mapped():
    with open("/proc/self/maps") as maps:
        return set(maps.read().split())
modules, before = set(sys.modules), mapped()
{statement}
print(*sys.modules.keys() - modules)
print(*mapped() - before)
"""


def loaded_by(statement: str, **variables: str) -> tuple[set[str], str]:
    """Return the modules that a statement adds to a fresh process, and what it maps."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(statement=statement)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    modules, _, maps = done.stdout.partition("\n")
    return set(modules.split()), maps


@pytest.fixture(params=["a bare interpreter", "one that comes with heavy modules"])
def interpreter(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return the variables that make it."""
    if request.param == "a bare interpreter":
        return {}
    (tmp_path / "sitecustomize.py").write_text("import ipaddress, socket, numpy\n")
    return {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("module", ["rpmem", "rpmemd.__main__", "rpmem.fabric.providers"])
def test_import_is_light(module: str, interpreter: dict[str, str]) -> None:
    package = module.split(".")[0]
    assert importlib.util.find_spec(package) is not None
    modules, maps = loaded_by(f"import {module}", **interpreter)
    assert modules.isdisjoint(HEAVY_MODULES)
    assert not [library for library in HEAVY_LIBRARIES if library in maps]


def test_a_session_begins_with_little(interpreter: dict[str, str]) -> None:
    modules, maps = loaded_by("import rpmemd.__main__, rpmemd.session", **interpreter)
    assert "rpmemd.session" in modules
    assert modules.isdisjoint({*HEAVY_MODULES, *DEAR_MODULES})
    assert "libcrypto.so" not in maps


def test_the_words_for_targets_and_errors_are_lighter_still(interpreter: dict[str, str]) -> None:
    modules, _ = loaded_by("import rpmem.base.target, rpmem.errors", **interpreter)
    assert "rpmem.base.target" in modules
    assert modules.isdisjoint({*HEAVY_MODULES, "ipaddress", "socket"})


def test_this_test_sees_what_is_heavy() -> None:
    # Not of the standard library: an interpreter may have begun with any of that.
    modules, _ = loaded_by("import numpy")
    assert "numpy" in modules
    if not has_library("libfabric"):
        pytest.skip("libfabric is not here")
    modules, maps = loaded_by("import rpmem.fabric.providers; rpmem.fabric.providers.load()")
    assert "rpmem.fabric.libfabric.fabric" in modules
    assert "libfabric.so" in maps
