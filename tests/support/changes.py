"""Random stores of many kinds, by threads that share pages: `persist()` never misses one.

``python -m tests.support.changes SEED STORES [--mode kernel|digest] [--folder DIR]`` makes so many
stores in pools of all kinds, half of them in each mode unless one is chosen, and says what
happened. Another seed is another order of events, as far as threads let it be.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import rpmem
from rpmem.pool import hashing
from rpmem.pool.tracking import digested
from tests.support import changes_round
from tests.support.changes_aside import ASIDE, FORKS
from tests.support.changes_copies import PLACES
from tests.support.changes_losses import LOSSES
from tests.support.changes_round import BESIDE, ENDS
from tests.support.changes_stores import Stores
from tests.support.changes_use import Plan

MODES = ("kernel", "digest")
MEMORY = Path("/dev/shm")
#: What has to happen in every run.
ALWAYS = (
    *(f"store {way}" for way in sorted(Stores.ways())),
    *BESIDE,
    *ASIDE,
    *FORKS,
    *(f"end: {end}" for end in ENDS),
    "persist()", "persist(relaxed)", "persist(x)", "persist(x, narrow)", "persist_many",
    "flush and drain", "a page gets back what it had", "a page gets back what it had before a join",
    "acknowledged counters found", "drains", "interrupted", "pageout",
    "dontneed", "failed ReplicaLost", "kill: ReplicaLost", "deadline: DeadlineExceeded",
    "refuse: FlushFailed", "refused here",
)  # fmt: skip
_LEAST = 400


def works(mode: str) -> str:
    """Return why a mode cannot be used here; empty: it can."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        try:
            rpmem.Pool.create(Path(folder) / "p", "2MiB", tracking=mode).close()
        except rpmem.RpmemError as error:
            return str(error)
    return ""


def plans(seed: int, stores: int, mode: str) -> list[Plan]:
    """Draw the rounds of a run: every place as often, and everything that may happen."""
    rng = random.Random(f"{seed} {mode}")
    count = max(len(PLACES), stores // 4000)
    losses, ends, forks = list(LOSSES), list(ENDS), list(FORKS)
    found = []
    for number in range(count):
        loud = [losses[(number + k) % len(losses)] for k in range(1 + (number % 2))]
        if stores // count >= 1500:
            loud = losses
        if number % 2 == 0:
            loud = [*loud, "child among threads"]
        quiet = list(ASIDE)
        rng.shuffle(quiet)
        # A fork ends what the kernel tells, so it comes last.
        quiet += [forks[(number // 2 + k) % len(forks)] for k in range(2)] if number % 2 else []
        place = PLACES[number % len(PLACES)]
        end = ends[(number + number // len(PLACES)) % len(ends)]
        hooked = end == "refuse here" or rng.random() < 0.4
        found.append(
            Plan(
                f"{seed} {mode} {number}", place, mode, max(stores // count, _LEAST),
                tuple(loud), tuple(quiet), end, hooked,
            )
        )  # fmt: skip
    return found


def run(seed: int, stores: int, mode: str, folder: Path) -> Counter[str]:
    """Make so many stores; return what happened how often.

    Parameters
    ----------
    seed : int
        Of everything that is drawn.
    stores : int
        About how many.
    mode : str
        "kernel" or "digest".
    folder : Path
        On a disk, for the pools that lie on one; the others lie in memory.
    """
    counts: Counter[str] = Counter()
    with (
        _in_small_pieces(),
        tempfile.TemporaryDirectory(prefix="rpmem-changes-", dir=MEMORY) as memory,
    ):
        for number, plan in enumerate(plans(seed, stores, mode)):
            where = folder if plan.place.startswith("disk") else Path(memory)
            changes_round.run(plan, where / f"{mode}{number}", counts)
    return counts


@contextmanager
def _in_small_pieces() -> Iterator[None]:
    """Let threads take turns more often, and a small pool have as many pieces as a large one."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0003)
    try:
        with (
            patch.object(hashing, "ALONE", 1 << 20),
            patch.object(hashing, "PIECE", 1 << 19),
            patch.object(digested, "WINDOW", 1 << 20),
        ):
            yield
    finally:
        sys.setswitchinterval(interval)


def never(counts: Counter[str]) -> list[str]:
    """Return what has to happen and did not."""
    return [what for what in ALWAYS if not counts[what]]


def swap() -> str:
    """Say whether this machine can swap, which a run of a mode then has to bear as well."""
    lines = Path("/proc/swaps").read_text().splitlines()[1:]
    return "there is swap" if lines else "there is no swap: pages of memory stay where they are"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="changes", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("stores", type=int)
    parser.add_argument("--mode", choices=MODES, help="only this one")
    parser.add_argument("--folder", type=Path, help="on a disk; default: the temporary directory")
    options = parser.parse_args(words)
    faulthandler.enable()
    modes = [options.mode] if options.mode else MODES
    figures = {}
    status = 0
    print(swap())
    for mode in modes:
        if reason := works(mode):
            print(f"{mode}: not here: {reason}")
            continue
        with tempfile.TemporaryDirectory(prefix="rpmem-changes-", dir=options.folder) as folder:
            counts = run(options.seed, options.stores // len(modes), mode, Path(folder))
        for what, number in sorted(counts.items()):
            print(f"{mode} {number:10d} {what}")
        for what in never(counts):
            print(f"{mode}: never happened: {what}")
            status = 1
        figures[mode] = counts
    if path := os.environ.get("RPMEM_NIGHTLY_FIGURES"):
        Path(path).write_text(json.dumps(figures))
    return status


if __name__ == "__main__":
    sys.exit(main())
