"""Scripts, cuts and chains by seed: ``python -m tests.support.powercut.runs``."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.powercut.checks import Checker, is_mixture
from tests.support.powercut.images import Replay
from tests.support.powercut.model import Loss
from tests.support.powercut.recorder import Event, Recorder, recording
from tests.support.powercut.scripts import HERE, MACHINES, SIZE, THERE, Script
from tests.support.powercut.target import targets_are_threads

SHM = "/dev/shm"
# Of pool sets, the first as often as the others together.
_OPTIONS = ("", "", "SINGLEHDR", "NOHDRS")
_SUMS = ("images", "scripts", "events", "chains", "headers", "threads")


@dataclass
class Result:
    """What came of a seed."""

    scripts: int = 0
    events: int = 0
    images: int = 0
    chains: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def lying(seed: int, one_in: int) -> Callable[[Event], bool]:
    """Return a medium that skips one flush in so many."""
    dice = random.Random(seed)
    return lambda event: event[0] == "flush" and dice.randrange(one_in) == 0


def run_seed(
    seed: int,
    *,
    images: int = 25,
    looks: int = 300,
    steps: int = 22,
    links: int = 3,
    skips: Callable[[Event], bool] = lambda event: False,
    result: Result | None = None,
) -> Result:
    """Run a chain of scripts; each goes on from an image of the one before.

    Parameters
    ----------
    seed : int
        Of everything.
    images, looks : int
        Cuts in each script: opened by the real code, and only read.
    steps : int
        Operations of each script.
    links : int
        Scripts of the chain.
    skips : callable
        A medium that lies, see `Recorder`.

    Raises
    ------
    Loss
        With the seed, and where it was.
    """
    result = Result() if result is None else result
    dice = random.Random(seed)
    folder = tempfile.mkdtemp(prefix="rpmem-cuts-", dir=SHM)
    try:
        with targets_are_threads():
            _chain(dice, folder, (images, looks), steps, links, skips, result)
    except Loss as loss:
        raise Loss(f"seed {seed}: {loss}") from loss
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _chain(
    dice: random.Random,
    folder: str,
    images: tuple[int, int],
    steps: int,
    links: int,
    skips: Callable[[Event], bool],
    result: Result,
) -> None:
    replicated = dice.random() < 0.8
    pool_set = dice.random() < 0.4
    root = os.path.join(folder, "0")
    for machine in MACHINES:
        os.makedirs(os.path.join(root, machine))
    if pool_set:
        _write_pool_set(root, dice.choice(_OPTIONS), parts=dice.randint(1, 3))
    before: Script | None = None
    for link in range(links):
        lost = before is not None and _lose_disk(root, before, dice)
        media = {machine: dice.choice(("page", "pmem")) for machine in MACHINES}
        recorder = Recorder(root, MACHINES, medium=media.__getitem__, skips=skips)
        script = Script(root, recorder, dice, replicated=replicated, pool_set=pool_set)
        if before is not None:
            script.may = before.may
        try:
            with recording(recorder):
                if before is not None:
                    (script.restore if lost else script.open)()
                script.run(steps)
        finally:
            script.abandon()
        replay = Replay(recorder)
        checker = Checker(script, replay, os.path.join(folder, "image"))
        last = script.moments[-1].end
        chosen = [
            (dice.randint(1, last), dice.getrandbits(32), index < images[0])
            for index in range(sum(images))
        ]
        for position, seed, opened in sorted(chosen):
            checker.check(position, seed, opened=opened)
        result.scripts += 1
        result.events += last
        result.images += sum(images)
        result.counts += checker.counts
        if link + 1 < links:
            root = os.path.join(folder, str(link + 1))
            before = _next(script, recorder, root, dice, folder)
            if before is None:
                recorder.close()
                return
            result.chains += 1
        recorder.close()


def _write_pool_set(root: str, option: str, *, parts: int) -> None:
    options = [f"OPTION {option}"] if option else []
    lines = [f"{SIZE} {root}/{HERE}/a.part{index}" for index in range(parts)]
    Path(root, HERE, "a.set").write_text("\n".join(["PMEMPOOLSET", *options, *lines, ""]))


def _next(
    script: Script, recorder: Recorder, root: str, dice: random.Random, folder: str
) -> Script | None:
    """Write an image to go on from; return the script with what may be there."""
    replay = Replay(recorder)
    position = dice.randint(1, script.moments[-1].end)
    replay.advance(position)
    checker = Checker(script, replay, root)
    checker.write(dice, dict.fromkeys(MACHINES, "torn"))
    moment = checker.moment(position)
    script.may = {machine: moment.options(machine, position) for machine in MACHINES}
    usable = None not in script.may[HERE]
    if script.replicated:
        usable = usable and None not in script.may[THERE]
    return script if usable else None


def _lose_disk(root: str, before: Script, dice: random.Random) -> bool:
    """Lose the disk of the local copy, sometimes; return whether that was done."""
    if not before.replicated or dice.random() < 0.7 or is_mixture(root):
        return False
    for path in Path(root, HERE).iterdir():
        if path.suffix != ".set":
            path.unlink()
    before.may[HERE] = [None]
    return True


def seeds_until_caught(
    seeds: range,
    *,
    one_in: int = 0,
    skips: Callable[[Event], bool] = lambda event: False,
) -> tuple[int, int, str]:
    """Run seeds on something broken; return how many it took, how many images, and the words.

    Parameters
    ----------
    seeds : range
        To be tried.
    one_in : int
        The medium skips one flush in so many.
    skips : callable
        What else it skips.

    Raises
    ------
    AssertionError
        None of them noticed.
    """
    result = Result()
    for count, seed in enumerate(seeds, 1):
        try:
            run_seed(seed, result=result, skips=lying(seed, one_in) if one_in else skips)
        except Loss as loss:
            return count, result.images, str(loss)
    raise AssertionError(f"nothing was noticed in {result.images} images of {len(seeds)} seeds")


def main() -> int:
    """Run seeds until the time is over, going on where an earlier run stopped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--first", type=int, help="first seed; left out: the next one")
    parser.add_argument("--images", type=int, default=100_000, help="how many, all runs together")
    parser.add_argument("--minutes", type=float, default=90.0, help="how long at most")
    parser.add_argument("--figures", type=Path, default=Path("build/powercut.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore", ResourceWarning)
    figures: dict[str, Any] = dict.fromkeys(_SUMS, 0)
    figures |= {"next_seed": 0, "seconds": 0.0, "losses": [], "counts": {}}
    if options.figures.exists():
        figures |= json.loads(options.figures.read_text())
    if options.first is not None:
        figures["next_seed"] = options.first
    begun = last = time.monotonic()
    while figures["images"] < options.images and last - begun < options.minutes * 60:
        _one_more(figures)
        now = time.monotonic()
        figures["seconds"] = round(figures["seconds"] + now - last, 1)
        last = now
        options.figures.parent.mkdir(parents=True, exist_ok=True)
        options.figures.write_text(json.dumps(figures, indent=1) + "\n")
    if added := os.environ.get("RPMEM_NIGHTLY_FIGURES"):
        numbers = {name: figures[name] for name in _SUMS}
        Path(added).write_text(json.dumps(numbers) + "\n")
    print({name: value for name, value in figures.items() if name != "counts"})
    return 1 if figures["losses"] else 0


def _one_more(figures: dict[str, Any]) -> None:
    """Run the next seed, and add it up."""
    from tests.support.powercut.headers import run_headers
    from tests.support.powercut.threads import run_threads

    seed = figures["next_seed"]
    figures["next_seed"] += 1
    result = Result()
    try:
        run_seed(seed, result=result)
        figures["headers"] += run_headers(seed)
        figures["threads"] += run_threads(seed)
    except Loss as loss:
        figures["losses"].append(str(loss))
        print(loss, file=sys.stderr)
    for name in ("images", "scripts", "events", "chains"):
        figures[name] += getattr(result, name)
    figures["counts"] = dict(Counter(figures["counts"]) + result.counts)


if __name__ == "__main__":
    sys.exit(main())
