"""Many random histories of copies, and what has to have happened in them; also as a command.

The command runs ``--count`` of them and prints how often each thing happened; the nightly part
``epochs`` runs a million.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.support import epoch_world

#: What the record of a copy becomes: all of it that can happen.
TRANSITIONS = (
    "none -> JOINING",
    "BEGUN -> BEGUN+PREPARED", "BEGUN -> CLEAN", "BEGUN -> JOINING", "BEGUN -> LEFT",
    "BEGUN+PREPARED -> BEGUN", "BEGUN+PREPARED -> BEGUN+PREPARED",
    "BEGUN+PREPARED -> CLEAN+PREPARED", "BEGUN+PREPARED -> JOINING",
    "BEGUN+PREPARED -> JOINING+PREPARED", "BEGUN+PREPARED -> LEFT+PREPARED",
    "CLEAN -> BEGUN", "CLEAN -> CLEAN+PREPARED", "CLEAN -> JOINING",
    "CLEAN+PREPARED -> BEGUN", "CLEAN+PREPARED -> BEGUN+PREPARED",
    "CLEAN+PREPARED -> CLEAN+PREPARED", "CLEAN+PREPARED -> JOINING",
    "CLEAN+PREPARED -> JOINING+PREPARED",
    "LEFT -> BEGUN", "LEFT -> JOINING", "LEFT -> LEFT+PREPARED",
    "LEFT+PREPARED -> BEGUN", "LEFT+PREPARED -> BEGUN+PREPARED", "LEFT+PREPARED -> JOINING",
    "LEFT+PREPARED -> JOINING+PREPARED", "LEFT+PREPARED -> LEFT+PREPARED",
    "JOINING -> JOINING", "JOINING -> JOINING+PREPARED",
    "JOINING+PREPARED -> BEGUN", "JOINING+PREPARED -> JOINING",
    "JOINING+PREPARED -> JOINING+PREPARED",
)  # fmt: skip
#: What else the histories have to be about.
EVENTS = (
    "met: same", "met: behind", "met: ahead", "met: split", "met: unrelated",
    "met: same, and closed after the local copy",
    "verdict: equal", "verdict: same", "verdict: behind", "verdict: discarded",
    "open: done", "open: stale-replica", "open: split-brain", "open: catalogue-corrupt",
    "open: replica-lost",
    "attach: done", "attach: stale-replica", "attach: split-brain", "attach: usage",
    "attach: replica-lost", "attach a new copy: done", "attach a new copy: replica-lost",
    "restore: done", "restore: stale-replica", "restore: replica-lost", "restore: crash",
    "persist: done", "detach: done", "detach: replica-lost", "close: done",
    "close without the local copy: done", "crash", "another writer acted in the middle",
    "a disk was lost", "an image was put back", "lost within the epoch of a copy put back",
    "split: handed out on both sides", "split: cautious",
    "more past epochs than a record has room for",
    "more copies parted than a record has room for",
    "no copy of the newest epoch", "opened at the end",
)  # fmt: skip
#: Each happens so often in a million histories.
LEAST = 1000
MILLION = 1_000_000
_BLOCK = 2500


def run(first: int, count: int) -> Counter[str]:
    """Run histories of consecutive seeds; return what happened how often.

    Raises
    ------
    Violation
        One went wrong; it says which.
    """
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            counts.update(epoch_world.run(seed))
        except Exception as error:
            error.add_note(f"history {seed}")
            raise
    return counts


def seldom(counts: Counter[str], histories: int) -> list[str]:
    """Return what happened less often than in proportion, or, of few histories, never."""
    least = LEAST * histories / MILLION if histories >= 50_000 else 1
    return [what for what in (*TRANSITIONS, *EVENTS) if counts[what] < least]


def unknown(counts: Counter[str]) -> list[str]:
    """Return the transitions that happened and are not known to be possible."""
    return sorted(what for what in counts if " -> " in what and what not in TRANSITIONS)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="epoch_runs", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first history")
    parser.add_argument("--count", type=int, default=MILLION)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args(words)
    firsts = range(options.seed, options.seed + options.count, _BLOCK)
    last = options.seed + options.count
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(options.jobs) as pool:
        for found in pool.map(run, firsts, [min(_BLOCK, last - first) for first in firsts]):
            counts.update(found)
    for what, number in sorted(counts.items()):
        print(f"{number:10d} {what}")
    if figures := os.environ.get("RPMEM_NIGHTLY_FIGURES"):
        Path(figures).write_text(json.dumps(counts))
    wrong = seldom(counts, options.count) + unknown(counts)
    for what in wrong:
        print(f"too seldom, or not known to be possible: {what}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
