"""``scripts/mutants``: make each mistake in a copy of the tree, build, run the tests, count.

A mutant is caught when one of its tests fails, or hangs until its time-out. One whose text is not
found once, or that does not compile, is a mistake of ours and fails the run; so does a test that
is red without any mutant.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tests.mutants import Mutant
from tests.mutants.every import ALL
from tests.support.mutation import NotFound, Tree, apply

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
#: Share that has to be caught.
ENOUGH = 0.95
_TEST_LIMIT_S = 60
_RUN_LIMIT_S = 400
_NEVER_COPIED = (".git", ".venv", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache")


class Outcome(NamedTuple):
    """What became of a mutant: ``caught``, ``survived`` or ``invalid``."""

    what: str
    function: str
    verdict: str
    seconds: float
    said: str


def main() -> None:
    """Run the command."""
    options = _options()
    chosen = [m for m in ALL if not options.match or options.match in f"{m.what} {m.function}"]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.function}: {mutant.what}")
        return
    lost = _unfound(chosen)
    done = _earlier(options.resume)
    left = [m for m in chosen if m.what not in done]
    print(f"mutants: {len(chosen)}, of which {len(done)} are known from before", flush=True)
    pristine = _pristine()
    if left and not options.no_baseline:
        _baseline(pristine, left)
    outcomes = {**done, **_try_all(left, pristine, options.jobs)}
    _report([outcomes[m.what] for m in chosen if m.what in outcomes], lost, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("match", nargs="?", help="only mutants with this in name or function")
    parser.add_argument("--list", action="store_true", help="list them and stop")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once")
    parser.add_argument("--resume", action="store_true", help="keep the outcomes of an earlier run")
    parser.add_argument("--no-baseline", action="store_true", help="take it that all is green")
    return parser.parse_args()


def _unfound(mutants: Sequence[Mutant]) -> list[str]:
    lost = []
    tree = Tree(ROOT)
    for mutant in mutants:
        try:
            tree.find(mutant)
        except NotFound as error:
            lost.append(str(error))
            print(f"mutants: {error}", flush=True)
    return lost


# --- copies of the tree -----------------------------------------------------------------------


def _pristine() -> Path:
    """Return a fresh copy of the tree, built as this one is."""
    WORK.mkdir(parents=True, exist_ok=True)
    return _copy(ROOT, WORK / "pristine")


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)

    def left_out(directory: str, names: list[str]) -> set[str]:
        skipped = {name for name in names if name in _NEVER_COPIED or name == "__pycache__"}
        if Path(directory) == ROOT / "build":
            skipped |= {"debug", "mutants", "nightly", "wheel"} & set(names)
        return skipped

    shutil.copytree(source, target, ignore=left_out, symlinks=True)
    return target


def _build(tree: Path, changed: Path) -> str | None:
    """Compile what the changed file takes part in; return what the compiler said if it failed."""
    if changed.suffix == ".py":
        return None
    environment = _environment(tree)
    if changed.suffix == ".pyx":
        relative = changed.relative_to(tree).with_suffix("")
        environment["RPMEM_EXT"] = ".".join(relative.parts)
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    return None if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]


def _environment(tree: Path) -> dict[str, str]:
    # Before the path entry of the editable install, for child processes too.
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


# --- tests ------------------------------------------------------------------------------------


def _run(tree: Path, tests: Sequence[str], *options: str, limit_s: float) -> tuple[int, str]:
    """Run tests in a tree; return pytest's exit status and its last words."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=line"]
    command += ["-p", "no:cacheprovider", f"--timeout={_TEST_LIMIT_S}", *options, *tests]
    with subprocess.Popen(
        command,
        cwd=tree,
        env=_environment(tree),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return 1, f"not over within {limit_s:g} s"
    lines = [line for line in said.splitlines() if line.strip()]
    return process.returncode, "\n".join(lines[-6:])


def _baseline(pristine: Path, mutants: Sequence[Mutant]) -> None:
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    # A node of a file that is run whole anyway would be run twice.
    tests = [test for test in tests if "::" not in test or test.split("::")[0] not in tests]
    status, said = _run(pristine, tests, limit_s=3600)
    if status != 0:
        raise SystemExit(f"mutants: tests are red without any mutant:\n{said}")
    print(f"mutants: {len(tests)} files and tests are green: {said.splitlines()[-1]}", flush=True)


def _try(mutant: Mutant, pristine: Path, tree: Path) -> Outcome:
    begun = time.monotonic()
    _copy(pristine, tree)

    def outcome(verdict: str, said: str) -> Outcome:
        seconds = round(time.monotonic() - begun, 1)
        return Outcome(mutant.what, mutant.function, verdict, seconds, said)

    try:
        changed = apply(mutant, tree)
    except NotFound as error:
        return outcome("invalid", str(error))
    if complaint := _build(tree, changed):
        return outcome("invalid", complaint)
    status, said = _run(tree, mutant.tests, "-x", limit_s=_RUN_LIMIT_S)
    # Red, or the interpreter died of it, or a signal that a test sends got out of that test.
    if status == 1 or status < 0 or (status == 2 and "KeyboardInterrupt" in said):
        return outcome("caught", said)
    return outcome("survived" if status == 0 else "invalid", said)


def _try_all(mutants: Sequence[Mutant], pristine: Path, jobs: int) -> dict[str, Outcome]:
    trees: SimpleQueue[Path] = SimpleQueue()
    for number in range(jobs):
        trees.put(WORK / f"tree{number}")

    def one(mutant: Mutant) -> Outcome:
        tree = trees.get()
        try:
            outcome = _try(mutant, pristine, tree)
        finally:
            trees.put(tree)
        print(f"{outcome.verdict:8} {outcome.seconds:6.1f} s  {mutant.function}: {mutant.what}")
        if outcome.verdict == "invalid":
            print(outcome.said)
        sys.stdout.flush()
        with open(WORK / "outcomes.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(outcome._asdict()) + "\n")
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        return {outcome.what: outcome for outcome in pool.map(one, mutants)}


# --- what came out ----------------------------------------------------------------------------


def _earlier(resume: bool) -> dict[str, Outcome]:
    path = WORK / "outcomes.jsonl"
    if not resume:
        path.unlink(missing_ok=True)
        return {}
    if not path.exists():
        return {}
    known = [Outcome(**json.loads(line)) for line in path.read_text().splitlines()]
    return {outcome.what: outcome for outcome in known if outcome.verdict == "caught"}


def _report(outcomes: list[Outcome], lost: list[str], options: argparse.Namespace) -> None:
    caught = [each for each in outcomes if each.verdict == "caught"]
    survived = [each for each in outcomes if each.verdict == "survived"]
    invalid = [each for each in outcomes if each.verdict == "invalid"]
    share = len(caught) / max(len(outcomes), 1)
    figures = {
        "mutants": len(outcomes),
        "caught": len(caught),
        "share": round(share, 4),
        "survived": [f"{each.function}: {each.what}" for each in survived],
        "invalid": [f"{each.function}: {each.what}" for each in invalid] + lost,
        "seconds": round(sum(each.seconds for each in outcomes), 1),
    }
    where = ROOT / "build" / "nightly"
    where.mkdir(parents=True, exist_ok=True)
    if not options.match:
        (where / "mutants.json").write_text(json.dumps(figures, indent=1) + "\n")
    for each in survived:
        print(f"survived: {each.function}: {each.what}")
    print(f"mutants: {len(caught)} of {len(outcomes)} caught ({share:.1%}), {len(invalid)} invalid")
    good = share >= ENOUGH and not invalid and not lost
    raise SystemExit(0 if good else 1)
