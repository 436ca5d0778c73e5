"""Figures: the benchmarks over RDMA, in a guest whose clock counts instructions."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.rdma.bench import guest
from tests.rdma.bench.project import FOLDER, ROOT
from tests.rdma.bench.report import BenchError, say, step

# However busy this machine is: the guest does not notice.
_LIMIT = 5400.0
_MARK = "figures "
# Beyond, ib_write_lat does not end over emulated devices.
_PERFTEST_SIZES = "64,256,1024,4096"


def run(machine: guest.Machine, options: Sequence[str]) -> None:
    """Measure, and write docs/benchmarks-rdma.md; with `options` a page in build/bench instead.

    Parameters
    ----------
    machine : Machine
        With two hosts.
    options : sequence of str
        Of ``python -m benchmarks.rdma``.
    """
    data = _measured(replace(machine, steady=True), options)
    if not options:
        # perftest never gives its processor away: it needs one for each side, and so a clock that
        # the rest of this machine disturbs.
        other = _measured(machine, ("--only", "perftest", "--sizes", _PERFTEST_SIZES))
        for name in ("contests", "counts"):
            data[name] += other[name]
        data["absent"] |= other["absent"]
    commit = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    shown = subprocess.run(commit, capture_output=True, text=True, check=False)
    data["commit"] = shown.stdout.strip()
    raw = FOLDER / "figures.json"
    raw.write_text(json.dumps(data) + "\n")
    page = FOLDER / "figures.md" if options else ROOT / "docs" / "benchmarks-rdma.md"
    # A process of its own: it needs what draws pictures, and the bench does not.
    words = [
        sys.executable,
        "-P",
        "-m",
        "benchmarks.rdma",
        "--report",
        str(raw),
        "--page",
        str(page),
    ]
    if subprocess.run(words, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False).returncode:
        raise BenchError(f"the report could not be written; the figures are in {raw}")
    say(f"figures: {page}, raw data {raw}")


def _measured(machine: guest.Machine, options: Sequence[str]) -> dict[str, Any]:
    """Return the figures of one guest."""
    found: list[str] = []

    def hear(line: str) -> None:
        if line.startswith(_MARK):
            found.append(line.removeprefix(_MARK))
        else:
            print(line, flush=True)

    command = f"CC=gcc exec python3 -P -m benchmarks.rdma {shlex.join(options)}"
    with step(f"figures in a guest with Linux {machine.kernel.release}"):
        outcome = guest.run(machine, command, output=hear, limit=_LIMIT, hosts=2)
    if not found:
        raise BenchError(f"no figures came out (status {outcome.status}, late: {outcome.late})")
    data: dict[str, Any] = json.loads(found[0])
    data["steady"] = machine.steady
    for contest in data["contests"]:
        contest["steady"] = machine.steady
    return data
