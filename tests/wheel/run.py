"""``make test-wheel``: the wheels, installed on machines made afresh, and under each Python here.

Everything is fetched first, from the package index and from Debian; then pip, uv and pipx see
nothing but a folder. The exit status is 1 where something fails, and 3 where it could not be tried.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.wheel import here, pythons
from tests.wheel.chroot import SUITES, Chroot, Failed, folder
from tests.wheel.make import DIST
from tests.wheel.steps import BUILD, DEBIANS, SSH, STEPS, elsewhere, lanes, pip_alone, ssh

#: What is installed beside rpmem: the tools that install it, an MPI, and what its own tests need.
_OTHERS = ("pip", "uv", "pipx", "mpich", "mpi4py", "setuptools>=77", "Cython<3.4")
_FOR_TESTS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
_NOT_TRIED = 3
_PLATFORMS = [
    word
    for glibc in ("2_34", "2_28", "2_27", "2_26", "2_17", "2_12", "2_5")
    for word in ("--platform", f"manylinux_{glibc}_x86_64")
]


def main(words: list[str] | None = None) -> int:
    """Try every step on every machine; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [step.__name__ for step in STEPS]
    parser.add_argument("--suite", choices=SUITES, action="append", help="only this Debian")
    parser.add_argument("--here", action="store_true", help="only the Pythons of this machine")
    parser.add_argument("--until", choices=names, default=names[-1], help="the last step")
    parser.add_argument("--without-build", action="store_true", help="leave out elsewhere")
    parser.add_argument("--again", action="store_true", help="install the Debians anew")
    options = parser.parse_args(words)
    if not list(DIST.glob("rpmem-*.whl")):
        print("test-wheel: not run: there is no wheel: make wheel", file=sys.stderr)
        return _NOT_TRIED
    good = True if options.suite else _try_here()
    if options.here:
        return 0 if good else 1
    why = _why_not()
    if why:
        print(f"test-wheel: no machine was made: {why}", file=sys.stderr)
        return _NOT_TRIED if good else 1
    steps = STEPS[: names.index(options.until) + 1]
    if options.without_build:
        steps = tuple(step for step in steps if step is not elsewhere)
    made = True
    for suite in options.suite or SUITES:
        try:
            machine = _machine(suite, again=options.again)
        except (subprocess.CalledProcessError, Failed) as error:
            print(f"test-wheel: {suite}: it cannot be made: {error}", file=sys.stderr)
            made = False
            continue
        good &= _try(machine, steps)
    if not good:
        return 1
    return 0 if made else _NOT_TRIED


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "only root can make machines in folders"
    missing = [name for name in ("debootstrap", "unshare") if shutil.which(name) is None]
    return f"{' and '.join(missing)} is not installed" if missing else None


def _wheels(version: str, *others: str) -> Path:
    """Return a folder with rpmem's wheel for a Python, and all that is going to be asked for."""
    wheels = folder() / f"wheels-{version}"
    wheels.mkdir(parents=True, exist_ok=True)
    tag = f"cp{version.replace('.', '')}"
    for old in wheels.glob("rpmem-*"):
        old.unlink()
    mine = [*DIST.glob(f"rpmem-*-{tag}-{tag}-*.whl"), *DIST.glob("rpmem-*.tar.gz")]
    if not any(path.suffix == ".whl" for path in mine):
        raise Failed(f"there is no wheel for CPython {version}: make wheel")
    for path in mine:
        shutil.copy2(path, wheels)
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    command += ["--only-binary=:all:", "--python-version", version, *_PLATFORMS, "-d", wheels]
    subprocess.run([*command, mine[0], *others], check=True)
    return wheels


def _try_here() -> bool:
    """Install the wheels under each Python of this machine; return whether all of that worked."""
    good = True
    for version, python in pythons.every():
        begun = time.monotonic()
        try:
            found = here.installed(python, _wheels(version))
        except (subprocess.CalledProcessError, Failed) as error:
            print(f"test-wheel: {python}: FAILED: {error}", flush=True)
            good = False
            continue
        print(f"test-wheel: {python}: {time.monotonic() - begun:.1f} s: {found}", flush=True)
    return good


def _machine(suite: str, *, again: bool) -> Chroot:
    """Return a machine that is ready, with all wheels that it is going to ask for."""
    begun = time.monotonic()
    wheels = _wheels(SUITES[suite], *_OTHERS, *_FOR_TESTS)
    machine = Chroot(suite, folder(), wheels)
    if again:
        shutil.rmtree(machine.base, ignore_errors=True)
    machine.bootstrap()
    machine.fresh()
    machine.fetch(*SSH, *DEBIANS, *BUILD)
    print(f"test-wheel: {suite}: made in {time.monotonic() - begun:.0f} s", flush=True)
    return machine


def _spent() -> float:
    """Return the CPU time of all commands so far, to which other work here does not add."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _try(machine: Chroot, steps: Sequence[Callable[[Chroot], str]]) -> bool:
    """Take steps; return whether all of them went well."""
    good = True
    total = cpu = 0.0
    for step in steps:
        begun, before = time.monotonic(), _spent()
        try:
            found = step(machine)
        except Failed as error:
            print(f"test-wheel: {machine.suite}: {step.__name__}: FAILED: {error}", flush=True)
            good = False
            continue
        found = "; ".join(found.splitlines())
        seconds, busy = time.monotonic() - begun, _spent() - before
        took = f"{seconds:.1f} s ({busy:.1f} s of CPU)"
        print(f"test-wheel: {machine.suite}: {step.__name__}: {took}: {found}", flush=True)
        if step in (pip_alone, lanes, ssh):
            total, cpu = total + seconds, cpu + busy
    sums = f"{total:.1f} s ({cpu:.1f} s of CPU)"
    print(f"test-wheel: {machine.suite}: {sums} to install it with pip and use it, also over ssh")
    return good


if __name__ == "__main__":
    sys.exit(main())
