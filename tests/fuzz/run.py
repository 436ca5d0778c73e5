"""``python -m tests.fuzz.run``: let libFuzzer look for an input that does what none may.

Before that, it has to find a fault that is planted: a lane that takes more bytes to be in reach
than there are. ``--keep`` adds to the corpus what reaches something new.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.debug.tree import NotHere
from tests.fuzz import CORPUS, SHARES
from tests.fuzz.build import build, environment

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "fuzz"
#: Bytes of an input at most.
LONGEST = 700
#: Inputs within which the planted fault has to be found.
PLANTED = 200_000
_PROGRAM = """
import sys
from tests.support._fuzzed_stream import drive

sys.exit(drive(sys.argv[1], sys.argv[3:], sys.argv[2] == "planted"))
"""


class Fuzz:
    """One run of libFuzzer over inputs of a kind.

    Parameters
    ----------
    kind : str
    corpora : sequence of Path
        Folders of inputs to begin with; what is found goes into the first.
    seed : int
    planted : bool
        See `tests/support/_fuzzed_stream.pyx`.
    """

    def __init__(
        self, kind: str, corpora: Sequence[Path], seed: int, *, planted: bool = False
    ) -> None:
        self.kind = kind
        self._corpora = corpora
        self._seed = seed
        self._planted = planted
        self.text = ""

    def run(self, *options: str) -> int:
        """Run it; return its exit status. `text` has what it printed."""
        words = [
            *(f"-seed={self._seed}", f"-max_len={LONGEST}", "-timeout=300", "-use_value_profile=1"),
            *("-detect_leaks=0", "-print_final_stats=1", f"-artifact_prefix={COPY}/found-"),
            *(*options, *map(str, self._corpora)),
        ]
        done = subprocess.run(
            [self._command(), *words],
            cwd=COPY,
            env=environment(COPY),
            capture_output=True,
            text=True,
            check=False,
        )
        self.text = done.stderr + done.stdout
        return done.returncode

    def _command(self) -> Path:
        """Return what runs libFuzzer, which calls itself by that name."""
        script = COPY / "build" / f"fuzz-{self.kind}"
        first = [sys.executable, "-P", "-c", _PROGRAM, self.kind]
        first += ["planted" if self._planted else "honest", str(script)]
        script.write_text(f'#!/bin/sh\nexec {shlex.join(first)} "$@"\n')
        script.chmod(0o755)
        return script

    @property
    def inputs(self) -> int:
        """How many inputs were run."""
        found = re.search(r"stat::number_of_executed_units:\s*(\d+)", self.text)
        return int(found[1]) if found else 0

    @property
    def reached(self) -> int:
        """How many places of the code were reached, as libFuzzer counts them."""
        found = re.findall(r"\bcov: (\d+)", self.text)
        return int(found[-1]) if found else 0


def control(folder: Path) -> bool:
    """Say whether the planted fault is found, and by AddressSanitizer."""
    fuzz = Fuzz("target", [folder, CORPUS / "target"], 1, planted=True)
    status = fuzz.run(f"-runs={PLANTED}")
    return status != 0 and "AddressSanitizer: heap-buffer-overflow" in fuzz.text


def kept(kind: str, found: Path) -> None:
    """Add to the corpus those inputs that reach what it does not."""
    Fuzz(kind, [CORPUS / kind, found], 1).run("-merge=1", "-use_value_profile=0")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=tuple(SHARES), help="one kind")
    parser.add_argument("--keep", action="store_true", help="add to the corpus")
    given = parser.parse_args(words)
    try:
        build(ROOT, COPY)
    except NotHere as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="rpmem-fuzz-") as made:
        work = Path(made)
        (work / "control").mkdir()
        if not control(work / "control"):
            print("fuzz: the planted fault was not found", file=sys.stderr)
            return 1
        return _all(given, work)


def _all(given: argparse.Namespace, work: Path) -> int:
    inputs, reached, bad = 0, {}, 0
    shares = {given.only: 100} if given.only else SHARES
    for kind, share in shares.items():
        (work / kind).mkdir()
        (CORPUS / kind).mkdir(exist_ok=True)
        fuzz = Fuzz(kind, [work / kind, CORPUS / kind], given.seed)
        status = fuzz.run(f"-runs={given.runs * share // 100}")
        inputs += fuzz.inputs
        reached[kind] = fuzz.reached
        print(f"{kind:17} {fuzz.inputs:8} inputs, {fuzz.reached:4} places reached", flush=True)
        if status:
            bad += 1
            print(fuzz.text[-6000:], file=sys.stderr)
        elif given.keep:
            kept(kind, work / kind)
    print(f"{inputs} inputs, {bad} kinds failed")
    if place := os.environ.get("RPMEM_NIGHTLY_FIGURES"):
        Path(place).write_text(json.dumps({"inputs": inputs, "failed": bad, "reached": reached}))
    return int(bad > 0 or inputs < given.runs * sum(shares.values()) // 100 - len(shares))


if __name__ == "__main__":
    shutil.rmtree(COPY / "found", ignore_errors=True)
    raise SystemExit(main())
