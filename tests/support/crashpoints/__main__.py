"""Cut off every operation after every event, and print where: ``python -m ...crashpoints``."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from tests.support.crashpoints import chains
from tests.support.crashpoints.cuts import Figures, run_all
from tests.support.powercut.model import Loss


def main() -> int:
    """Run seeds, and print a table: operation, machine, kind of event, how many."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--one-in", type=int, default=1, help="look at one cut in so many")
    parser.add_argument(
        "--all-looks", action="store_true", help="look in every way, and not in one"
    )
    parser.add_argument(
        "--scripts", type=int, default=0, help="and cut so many random scripts, by seed"
    )
    parser.add_argument("--minutes", type=float, default=85.0, help="begin no seed after that")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ResourceWarning)
    begun = time.monotonic()
    works = [
        functools.partial(run_all, seed, one_in=options.one_in, all_looks=options.all_looks)
        for seed in range(options.seed, options.seed + options.seeds)
    ]
    works += [
        functools.partial(chains.run, seed)
        for seed in range(options.seed, options.seed + options.scripts)
    ]
    figures, losses, done = Figures(), [], 0
    for work in works:
        if time.monotonic() - begun > options.minutes * 60:
            break
        done += 1
        try:
            found = work()
        except Loss as loss:
            losses.append(str(loss))
            print(loss, file=sys.stderr)
            continue
        figures.images += found.images
        figures.looks += found.looks
        figures.points |= found.points
    _print(figures)
    numbers = {
        "runs": done,
        "points": figures.points.total(),
        "images": figures.images,
        "losses": len(losses),
        "seconds": round(time.monotonic() - begun),
    }
    print(numbers)
    if added := os.environ.get("RPMEM_NIGHTLY_FIGURES"):
        Path(added).write_text(json.dumps(numbers) + "\n")
    return 1 if losses else 0


def _print(figures: Figures) -> None:
    for (operation, machine, kind), count in sorted(figures.points.items()):
        print(f"{operation:18} {machine:6} {kind:28} {count:5}")
    totals: Counter[str] = Counter()
    for (operation, _, _), count in figures.points.items():
        totals[operation] += count
    for operation, count in totals.items():
        print(f"{operation:18} {count:5} points")
    for what, count in sorted(figures.looks.items()):
        print(f"{what:60} {count:6}")


if __name__ == "__main__":
    sys.exit(main())
