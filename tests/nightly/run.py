"""``scripts/nightly``: run long proofs, round by round, and keep their figures.

``build/nightly/NAME.json`` says what became of a part, after every round. A part that was
interrupted, or was not done after 90 minutes, goes on with its next round when it is called again
on the same commit; one that is done begins anew, with seeds that no earlier run had. A round that
failed is run again with ``--seed N --rounds 1``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.nightly import Part
from tests.nightly.parts import LIMIT_S, PARTS

ROOT = Path(__file__).resolve().parents[2]
FIGURES = "RPMEM_NIGHTLY_FIGURES"
SEED = "RPMEM_TEST_SEED"
PASSED, FAILED, UNFINISHED = "passed", "failed", "unfinished"
_SEEDS = 1 << 30


def main(words: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """Run the command; return its exit status."""
    options = _options(words)
    if options.list:
        for part in parts:
            print(f"{part.name:10} {part.rounds:4d} rounds, {part.minutes:3d} min: {part.proves}")
        return 0
    chosen = [part for part in parts if not options.parts or part.name in options.parts]
    if unknown := set(options.parts) - {part.name for part in parts}:
        names = ", ".join(part.name for part in parts)
        print(f"nightly: there is no part {', '.join(sorted(unknown))}; there are {names}")
        return 2
    records = [_run(part, options) for part in chosen]
    for record in records:
        print(
            f"nightly: {record['part']}: {record['result']}, {record['done']} of "
            f"{record['rounds']} rounds in {record['seconds']:.0f} s"
            + "".join(f", {count} {name}" for name, count in record["counts"].items())
        )
    return int(any(record["result"] != PASSED for record in records))


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/nightly",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help="their names; none: all of them, in turn")
    parser.add_argument("--list", action="store_true", help="list the parts and stop")
    parser.add_argument("--seed", type=int, help="of the first round; begins anew")
    parser.add_argument("--rounds", type=int, help="how many, not as many as the part has")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for each part")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "nightly")
    return parser.parse_args(words)


def _run(part: Part, options: argparse.Namespace) -> dict[str, Any]:
    """Run what is left of a part, at most as long as it may take."""
    options.out.mkdir(parents=True, exist_ok=True)
    record = _begin(part, options)
    print(f"nightly: {part.name} from round {record['done'] + 1} on, seed {record['seed']}")
    begun = time.monotonic()
    before, longest = record["seconds"], 0.0
    while record["done"] < record["rounds"]:
        left = options.limit - (time.monotonic() - begun)
        if left < longest or left <= 0:
            break
        started = time.monotonic()
        outcome = _round(part, record, left, options.out)
        longest = max(longest, time.monotonic() - started)
        record["seconds"] = round(before + time.monotonic() - begun, 3)
        record["ended"] = _now()
        if outcome is None:
            break
        record["done"] += 1
        _write(record, options.out)
    if record["done"] == record["rounds"]:
        record["result"] = FAILED if record["failed"] else PASSED
    elif record["failed"]:
        record["result"] = FAILED
    _write(record, options.out)
    return record


def _begin(part: Part, options: argparse.Namespace) -> dict[str, Any]:
    """Return the record of an earlier run that can go on, or a new one."""
    rounds = options.rounds or part.rounds
    with contextlib.suppress(OSError, ValueError):
        record: dict[str, Any] = json.loads((options.out / f"{part.name}.json").read_text())
        same = (record["command"], record["rounds"], record["commit"]) == (
            part.command,
            rounds,
            _commit(),
        )
        if same and options.seed is None and record["done"] < rounds:
            return record
    return {
        "part": part.name,
        "proves": part.proves,
        "command": part.command,
        "commit": _commit(),
        "seed": random.SystemRandom().randrange(_SEEDS) if options.seed is None else options.seed,
        "rounds": rounds,
        "done": 0,
        "begun": _now(),
        "ended": _now(),
        "seconds": 0.0,
        "counts": {},
        "failed": [],
        "cut_off": False,
        "result": UNFINISHED,
    }


def _round(part: Part, record: dict[str, Any], limit_s: float, out: Path) -> int | None:
    """Run the next round and note what came of it; None where it was not over in time."""
    seed = record["seed"] + record["done"]
    log = out / f"{part.name}.log"
    with tempfile.TemporaryDirectory(prefix="rpmem-nightly-") as folder:
        figures, junit = Path(folder, "figures.json"), Path(folder, "junit.xml")
        python = shlex.quote(sys.executable)
        options = f"-q --junitxml={junit} -o junit_family=xunit1"
        command = part.command
        for name, value in {
            "python": python,
            "pytest": f"{python} -m pytest {options}",
            "options": options,
            "seed": str(seed),
            "resume": "--resume" if record["cut_off"] else "",
        }.items():
            command = command.replace(f"{{{name}}}", value)
        status = _shell(command, {FIGURES: str(figures), SEED: str(seed)}, log, limit_s)
        record["cut_off"] = status is None
        if status is None:
            return None
        for name, count in {**_of_pytest(junit), **_of_json(figures)}.items():
            record["counts"][name] = record["counts"].get(name, 0) + count
    if status:
        kept = log.with_name(f"{part.name}-{seed}.log")
        log.replace(kept)
        record["failed"].append({"seed": seed, "status": status, "log": str(kept)})
        print(f"nightly: {part.name}, seed {seed}: exit status {status}, see {kept}", flush=True)
    return status


def _shell(command: str, variables: dict[str, str], log: Path, limit_s: float) -> int | None:
    """Run a command with its output in a file; return its status, None where it was cut off."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["bash", "-c", command],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            return process.wait(limit_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
    return None


def _of_pytest(junit: Path) -> dict[str, int | float]:
    """Return the counts in what ``--junitxml`` wrote, and the sums of the tests' properties."""
    counts: dict[str, int | float] = {}
    if not junit.exists():
        return counts
    for suite in ElementTree.parse(junit).iter("testsuite"):
        for name in ("tests", "failures", "errors", "skipped"):
            counts[name] = counts.get(name, 0) + int(suite.get(name, 0))
    for each in ElementTree.parse(junit).iter("property"):
        name, value = each.get("name", ""), each.get("value", "")
        with contextlib.suppress(ValueError):
            counts[name] = counts.get(name, 0) + (int(value) if value.isdigit() else float(value))
    return counts


def _of_json(figures: Path) -> dict[str, int | float]:
    """Return the numbers that a round wrote by itself."""
    if not figures.exists():
        return {}
    found = json.loads(figures.read_text())
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _write(record: dict[str, Any], out: Path) -> None:
    made = out / f".{record['part']}.json"
    made.write_text(json.dumps(record, indent=2) + "\n")
    made.replace(out / f"{record['part']}.json")


if __name__ == "__main__":
    sys.exit(main())
