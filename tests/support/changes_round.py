"""One round: a pool is made, used in every way while things go wrong, and ends in some way."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import rpmem
from tests.support.changes_aside import ASIDE, FORKS, child_among_threads
from tests.support.changes_losses import LOSSES
from tests.support.changes_stores import Memory
from tests.support.changes_use import ADVICE, WRITERS, Missed, Plan, Use

#: What happens while threads go on.
BESIDE: Mapping[str, Callable[[Use], None]] = MappingProxyType(
    {**LOSSES, "child among threads": child_among_threads}
)
#: How many stores are made, at least, between two looks at all copies.
BETWEEN = 100


def run(plan: Plan, folder: Path, counts: Counter[str]) -> None:
    """Run a round in a folder of its own.

    Raises
    ------
    Missed
        A copy lacks something; the note says in which round.
    """
    folder.mkdir()
    try:
        use = Use(plan, folder, counts)
        with use.hearing(), use.going_on():
            _main(use)
        counts["rounds"] += 1
        counts["stores"] += sum(use.done)
    except BaseException as error:
        error.add_note(str(plan))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _main(use: Use) -> None:
    happens, advice = {**ASIDE, **FORKS}, list(ADVICE)
    count = max(use.plan.stores // BETWEEN, 1)
    loud = _spread(use.plan.loud, count)
    quiet = _spread(use.plan.quiet, count)
    for number in range(count):
        for act in loud.get(number, ()):
            BESIDE[act](use)
            use.counts[act] += 1
        while sum(use.done) < (number + 1) * BETWEEN:
            use.check_threads()
            use.nudge()
        use.advise(advice[number % len(advice)])
        use.drain()
        for act in quiet.get(number, ()):
            with use.gate.closed():
                if happens[act](use):
                    use.counts[act] += 1
                    use.settle(act)
    ENDS[use.plan.end](use)
    use.counts[f"end: {use.plan.end}"] += 1


def _spread(acts: tuple[str, ...], count: int) -> dict[int, list[str]]:
    spread: dict[int, list[str]] = {}
    for index, act in enumerate(acts):
        spread.setdefault((index + 1) * count // (len(acts) + 1), []).append(act)
    return spread


# --- ends -----------------------------------------------------------------------------


def _close(use: Use) -> None:
    use.drain()


def _reopen(use: Use) -> None:
    """What was stored and never persisted before a close is found after it."""
    use.gate.end()
    use.check_threads()
    for number in range(WRITERS):
        use.stores[number].store(number, use.rng)
    expected = use.memory.expected
    _forget_views(use)
    use.pool.close()
    specs = [node.spec for node in use.nodes]
    use.pool = rpmem.Pool.open(use.place.local, specs, tracking=use.plan.mode, **use.session())
    use.attached = list(use.nodes)
    use.medium = None
    array = use.pool["data"]
    use.memory = Memory(array, WRITERS)
    use.memory.expected = expected
    use.settle("opening again")
    del array


def _refuse_here(use: Use) -> None:
    """The local medium refuses: nobody is told anything else, from then on."""
    if use.medium is None:
        use.drain()
        return
    use.faulty = True
    use.medium.refusing = errno.EIO
    use.stores[-1].put(use.memory.rest, 8, 5, use.rng)
    for _ in range(3):
        try:
            use.pool.persist()
        except rpmem.FlushFailed:
            use.counts["refused here"] += 1
        else:
            raise Missed("persist() returned although the local medium had refused")
        use.medium.refusing = 0
    use.gate.end()


def _forget_views(use: Use) -> None:
    for each in use.stores:
        each._memory = None  # type: ignore[assignment]
    del use.memory, use.counters


#: How a round ends.
ENDS: Mapping[str, Callable[[Use], None]] = MappingProxyType(
    {"close": _close, "reopen": _reopen, "refuse here": _refuse_here}
)
