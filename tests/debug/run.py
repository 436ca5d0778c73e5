"""``scripts/debug``: build with sanitizers and checks, in a copy of the tree; run tests with it.

All further arguments go to pytest, as if it were called in the root of the tree. Before the tests,
mistakes made on purpose must be reported. The run is red if a test is, or if any process reported
anything; the reports are printed, and stay in ``build/debug/build/reports``.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.debug.tree import NotHere, compile_all, interpreter, mirror, runtime

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "debug"
#: What each of the functions of ``tests/support/_overstep.pyx`` has to have reported.
CONTROLS = {
    "store_behind": "heap-buffer-overflow",
    "load_freed": "heap-use-after-free",
    "store_behind_stack": "stack-buffer-overflow",
    "overflow": "signed integer overflow",
    "index_behind": "out of bounds for type",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/debug",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--build", action="store_true", help="build, and run nothing")
    options, rest = parser.parse_known_args(words)
    try:
        for name in ("asan", "ubsan"):
            runtime(name)
        with _alone(ROOT / "build"):
            python = build(ROOT, COPY)
            return 0 if options.build else run(python, COPY, rest)
    except NotHere as error:
        print(f"debug: {error}", file=sys.stderr)
        return 1


def build(root: Path, copy: Path) -> Path:
    """Bring the copy up to date and build it; return its interpreter."""
    mirror(root, copy)
    compile_all(copy)
    return interpreter(copy, reports_of(copy))


def run(python: Path, copy: Path, words: Sequence[str]) -> int:
    """See the controls reported, run tests, and print what was reported; return the status."""
    if missed := [name for name in CONTROLS if not control(python, copy, name)]:
        print(f"debug: not reported, though made on purpose: {', '.join(missed)}", file=sys.stderr)
        return 1
    reports = reports_of(copy)
    _clear(reports)
    # Its faulthandler would take the signals that are to be reported.
    command = [python, "-P", "-m", "pytest", "-p", "no:faulthandler", *words]
    status = subprocess.run(command, cwd=copy).returncode
    found = texts(reports)
    for name, text in found.items():
        print(f"\n== {name}\n{text}")
    print(f"debug: {len(found)} reports, pytest's exit status {status}")
    return status or int(bool(found))


def control(python: Path, copy: Path, name: str) -> bool:
    """Make a mistake on purpose; return whether it was reported as what it is."""
    reports = reports_of(copy)
    _clear(reports)
    program = f"from tests.support._overstep import {name}; {name}(8)"
    subprocess.run([python, "-c", program], cwd=copy, stderr=subprocess.DEVNULL)
    return any(CONTROLS[name] in text and name in text for text in texts(reports).values())


def reports_of(copy: Path) -> Path:
    """Return the folder into which the processes of a copy report."""
    return copy / "build" / "reports"


def texts(reports: Path) -> dict[str, str]:
    """Return what was reported: by file, one for each process and sanitizer."""
    return {path.name: path.read_text(errors="replace") for path in sorted(reports.iterdir())}


def _clear(reports: Path) -> None:
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    # Daemons that a test starts as somebody else report too.
    reports.chmod(0o1777)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time build the copy, or use it."""
    folder.mkdir(exist_ok=True)
    with open(folder / ".lock.debug", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
