"""No call of a compiled class crashes the process, even with a wrong self or None as argument.

Each class is tried in a separate process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.support.without import is_built

ROOT = Path(__file__).resolve().parents[3]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("rpmem", "rpmemd")
    for path in sorted((ROOT / package).rglob("*.pyx"))
]

PROGRAM = """
import importlib, sys

kind = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
tried = 0

def refused(what, call, *arguments):
    # Where it ends the process, this is the last that is said.
    global tried
    print("trying", what, arguments, flush=True)
    tried += 1
    try:
        call(*arguments)
    except Exception as error:
        return isinstance(error, TypeError)
    return False

static = (staticmethod, classmethod)
for name, member in vars(kind).items():
    if callable(member) and not isinstance(member, static) and name != "__new__":
        for other in (None, 5, object()):
            if not refused(name, member, other):
                sys.exit(f"{name} takes {other!r} for self")
for count in range(8):
    refused("constructor", kind, *[None] * count)
try:
    bare = kind.__new__(kind)
except Exception:
    bare = None  # there is none that was not begun
for name in vars(kind) if bare is not None else ():
    refused(name, getattr, bare, name)
    if name != "__init__" and callable(getattr(kind, name)):
        for count in range(5):
            refused(name, lambda *arguments: getattr(bare, name)(*arguments), *[None] * count)
print("tried", tried)
"""


class Lax:
    """Methods as they must not be."""

    def close(self):
        return 0


class Fatal:
    def __new__(cls, what=0):
        return os.abort() if what is None else object.__new__(cls)


def classes(module: types.ModuleType) -> list[str]:
    """Return the names of the classes that a module makes itself."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]


def trial(module: str, name: str) -> tuple[int, str]:
    """Return the exit status of a process that tries a class, and what it said last."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("module", MODULES)
def test_a_class_bears_other_objects_and_none(module):
    if not is_built(module):
        pytest.skip(f"{module} is not built here")
    for name in classes(pytest.importorskip(module)):
        status, said = trial(module, name)
        assert (status, said.split()[0]) == (0, "tried"), f"{name}: {said}"
        assert int(said.split()[1]) > 8


def test_classes_are_found():
    assert {"Region", "Replicator", "LaneGroup"} <= {
        name
        for module in ("rpmem._core", "rpmem.engine.lanegroup", "rpmem.memory.region")
        for name in classes(pytest.importorskip(module))
    }


def test_a_method_that_takes_anything_for_self_is_found():
    assert trial(__name__, "Lax") == (1, "close takes None for self")


def test_a_class_that_ends_the_process_is_found():
    status, said = trial(__name__, "Fatal")
    assert (status, said) == (-6, "trying constructor (None,)")
