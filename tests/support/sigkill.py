"""Kill a target, or an initiator, in the middle of a random workload, many times.

A chain is one process that kills and checks; several can run in parallel::

    python -P -m tests.support.sigkill target DIRECTORY SEED KILLS BREAKAGE
    python -P -m tests.support.sigkill initiator DIRECTORY SEED KILLS BREAKAGE

The target keeps its pool on the shadow medium, where SIGKILL is a power cut. After every kill the
parts are read directly and compared with the acknowledged data. The results are printed as JSON.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rpmem.epochs.record import Mark
from rpmem.errors import PoolSetBusy, RpmemError
from rpmem.pool.pool import Pool
from tests.support import fabrics, faulty_rpmemd
from tests.support.kernel import tells_no_stores
from tests.support.media import PoolImage, image_of, wait_unlocked
from tests.support.workload import (
    CHURN,
    LOOKING,
    WRITES,
    Journal,
    Ledger,
    Loss,
    Program,
    Run,
    Words,
    data_name,
)

THREADS = 3
LANES = 2
#: Larger than a part, so that the pool has a seam; the filler moves the arrays onto it.
SIZE = 3 << 20
PARTS = 2
FILLER_WORDS = (3 << 19) // 8
DATA_WORDS = 24 << 10
TIMEOUT = 20.0
HANGS = 60.0

OPENING, WORKING = 1, 2

_COMMAND = (sys.executable, "-P", "-X", "faulthandler", "-m", "tests.support.sigkill")


@dataclass
class Summary:
    """What a chain did.

    Parameters
    ----------
    kills : int
        How often it killed, and checked.
    operations, words : int
        Acknowledged, and compared.
    flying : int
        Operations that were on their way when the kill came.
    slowest_wake, slowest_unlock : float
        Seconds until the last thread knew; until the survivor had let go of the pool.
    errors : dict
        What threads got, by kind.
    phases : dict
        What the replica's superblock said after a kill.
    seconds : float
        All of it.
    """

    kills: int = 0
    operations: int = 0
    words: int = 0
    flying: int = 0
    slowest_wake: float = 0.0
    slowest_unlock: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    phases: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, journal: Journal) -> None:
        """Add what a journal says."""
        for thread in range(THREADS):
            begun, acknowledged = journal.progress(thread)
            self.operations += acknowledged
            self.flying += begun > acknowledged


def without_filler(arrays: Mapping[str, Words]) -> dict[str, Words]:
    """Return a copy of the arrays that the workload uses."""
    return {name: words.copy() for name, words in arrays.items() if name != "filler"}


def programs_for(seed: int, base: Mapping[str, Words]) -> Callable[[], list[Program]]:
    """Return what makes the programs of all threads, again and again the same."""
    counts = {name: len(words) for name, words in base.items()}
    own = [
        {name: count for name, count in counts.items() if name.split("-")[1] == str(thread)}
        for thread in range(THREADS)
    ]
    kinds = WRITES + LOOKING + CHURN
    return lambda: [Program(seed, thread, own[thread], kinds) for thread in range(THREADS)]


def furnish(pool: Pool) -> None:
    """Make the arrays every workload begins with."""
    pool.array("filler", FILLER_WORDS, np.uint64)
    for thread in range(THREADS):
        pool.array(data_name(thread), DATA_WORDS, np.uint64)


def tracking_of(seed: int) -> str:
    """Return how changes are found: by all ways in turn, as far as the kernel tells."""
    return "digest" if seed % 2 or tells_no_stores() else "kernel"


def lanes_of(seed: int, command: str) -> str:
    """Return the daemon's command for lanes over pairs and over connections, in turn."""
    return fabrics.over_tcp(command) if seed % 2 else command


def workload(pool: Pool, seed: int, base: Mapping[str, Words], journal: Journal) -> Run:
    """Return threads that are ready to start."""
    views = [
        {name: pool[name] for name in base if name.split("-")[1] == str(thread)}
        for thread in range(THREADS)
    ]
    return Run(pool, views, programs_for(seed, base)(), journal)


def await_moment(
    journal: Journal, moment: random.Random, broken: Callable[[], bool], most: int
) -> None:
    """Wait for a random number of acknowledged operations, and then a random moment more."""
    wanted = moment.randint(0, most)
    deadline = time.monotonic() + HANGS
    while journal.total(THREADS) < wanted and not broken():
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {journal.total(THREADS)} operations in {HANGS:g} s")
        time.sleep(0.0002)
    end = time.perf_counter() + moment.choice((0.0, 1e-4, 1e-3, 4e-3)) * moment.random()
    while time.perf_counter() < end:
        pass


# --- targets ----------------------------------------------------------------------------------


def kill_targets(directory: Path, seed: int, kills: int, command: str) -> Summary:
    """Kill the target of one pool, check its medium, go on with a new target; and so on."""
    summary, errors = Summary(), Counter[str]()
    moment = random.Random(seed)
    journal = Journal(directory / "journal")
    pool_set = directory / "a.set"
    spec = f"local:{directory} a.set"
    pool = Pool.create(
        mmap.mmap(-1, SIZE),
        replicas=[spec],
        parts=PARTS,
        nlanes=LANES,
        timeout=TIMEOUT,
        command=command,
        tracking=tracking_of(seed),
    )
    with pool:
        furnish(pool)
        for life in range(kills):
            base = without_filler({name: pool[name] for name in pool.names()})
            life_seed = seed << 16 | life
            journal.clear()
            run = workload(pool, life_seed, base, journal)
            run.start()
            await_moment(journal, moment, lambda run=run: bool(run.endings), most=40)
            killed = time.monotonic()
            os.kill(pool.replicas[0].peer.pid, signal.SIGKILL)
            run.join(HANGS)
            for ending in run.endings.values():
                errors[type(ending.error).__name__] += 1
                summary.slowest_wake = max(summary.slowest_wake, ending.at - killed)
            unlocked = wait_unlocked(pool_set)
            summary.slowest_unlock = max(summary.slowest_unlock, unlocked)
            found = PoolImage.parse(image_of(pool_set))
            ledger = Ledger(base, programs_for(life_seed, base), journal)
            summary.words += ledger.check(without_filler(found.arrays()))
            summary.count(journal)
            summary.kills += 1
            del run
            pool.detach(0)
            pool.attach(spec)
            make_up(pool, programs_for(life_seed, base)(), journal)
        summary.errors = dict(errors)
    check_restored(directory, spec)
    return summary


def make_up(pool: Pool, programs: Sequence[Program], journal: Journal) -> None:
    """Make durable what was stored when calls failed: a replica that joins may lack it."""
    for thread, program in enumerate(programs):
        begun, acknowledged = journal.progress(thread)
        for _ in range(acknowledged):
            program.next()
        flying = program.next() if begun > acknowledged else None
        if flying is not None and flying.name in pool:
            for part in flying.slices:
                pool.persist(pool[flying.name][part])


def check_restored(directory: Path, spec: str) -> None:
    """Restore the pool from its replica with the ordinary rpmemd, and compare."""
    expected = without_filler(PoolImage.parse(image_of(directory / "a.set")).arrays())
    place = directory / "restored.pool"
    with Pool.restore(place, spec, timeout=TIMEOUT) as pool:
        found = without_filler({name: pool[name] for name in pool.names()})
    place.unlink()
    if expected.keys() != found.keys() or any(
        not np.array_equal(expected[name], found[name]) for name in expected
    ):
        raise Loss("the restored pool is not what the replica holds")


# --- initiators -------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; return its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def open_soon(local: Path, spec: str, **options: Any) -> Pool:
    """Open a pool whose last target may still be on its way to notice that it is alone.

    It was started by an initiator that died at once; the request that it finds in its stdin it
    carries out, and only then meets the end.
    """
    deadline = time.monotonic() + HANGS
    while True:
        try:
            return Pool.open(local, [spec], **options)
        except PoolSetBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def use_pool(local: Path, spec: str, seed: int, journal: Journal, command: str) -> None:
    """Open the pool and work on it until killed."""
    journal.stage = OPENING
    tracking = tracking_of(seed)
    pool = open_soon(local, spec, nlanes=LANES, timeout=TIMEOUT, command=command, tracking=tracking)
    base = without_filler({name: pool[name] for name in pool.names()})
    run = workload(pool, seed, base, journal)
    journal.stage = WORKING
    run.start()
    run.join(HANGS)
    raise RuntimeError(f"the workload ended by itself: {run.endings}")


def make_pool(local: Path, spec: str, command: str) -> None:
    """Create the pool, and close it as one should."""
    with Pool.create(local, SIZE, [spec], parts=PARTS, timeout=TIMEOUT, command=command) as pool:
        furnish(pool)


def kill_initiators(directory: Path, seed: int, kills: int, command: str) -> Summary:
    """Kill one initiator after the other; each opens what the one before left behind."""
    summary, phases = Summary(), Counter[str]()
    moment = random.Random(seed)
    journal = Journal(directory / "journal")
    pool_set, local = directory / "a.set", directory / "local.pool"
    spec = f"local:{directory} a.set"
    maker = in_child(lambda: make_pool(local, spec, command))
    if os.waitpid(maker, 0)[1]:
        raise RuntimeError("the pool could not be made")
    wait_unlocked(pool_set)
    before = without_filler(PoolImage.parse(image_of(pool_set)).arrays())
    for life in range(kills):
        base = without_filler(PoolImage.parse(image_of(local)).arrays())
        life_seed = seed << 16 | life
        journal.clear()
        user = in_child(lambda seed=life_seed: use_pool(local, spec, seed, journal, command))
        while_opening = moment.random() < 0.15
        try:
            await_stage(journal, OPENING if while_opening else WORKING, user)
            if while_opening:
                time.sleep(moment.random() * 0.3)
            else:
                await_moment(journal, moment, lambda: False, most=40)
        finally:
            os.kill(user, signal.SIGKILL)
        status = os.waitpid(user, 0)[1]
        if status != signal.SIGKILL:
            raise RuntimeError(f"an initiator ended by itself, status {status:#x}")
        summary.slowest_unlock = max(summary.slowest_unlock, wait_unlocked(pool_set))
        ledger = Ledger(base, programs_for(life_seed, base), journal)
        here = PoolImage.parse(image_of(local))
        summary.words += ledger.check(without_filler(here.arrays()))
        found = PoolImage.parse(image_of(pool_set))
        phases[found.record.mark.name] += 1
        there = without_filler(found.arrays())
        if journal.stage == WORKING:
            summary.words += ledger.check(there)
        elif found.record.mark is not Mark.JOINING:
            check_mixture(there, before, base)
        before = there
        summary.count(journal)
        summary.kills += 1
    summary.phases = dict(phases)
    reopen_and_restore(directory, local, spec)
    return summary


def await_stage(journal: Journal, stage: int, user: int) -> None:
    """Wait until the initiator is that far."""
    deadline = time.monotonic() + HANGS
    while journal.stage < stage:
        if os.waitid(os.P_PID, user, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise RuntimeError("an initiator ended before it worked")
        if time.monotonic() > deadline:
            raise TimeoutError("an initiator hangs")
        time.sleep(0.001)


def check_mixture(
    found: Mapping[str, Words], old: Mapping[str, Words], new: Mapping[str, Words]
) -> None:
    """Raise `Loss` unless every array is the old one, the new one, or in between."""
    for name in old.keys() & new.keys():
        if name not in found or not ((found[name] == old[name]) | (found[name] == new[name])).all():
            raise Loss(f"{name} is neither old nor new")


def reopen_and_restore(directory: Path, local: Path, spec: str) -> None:
    """Open the pool a last time, close it as one should, and restore it from the replica."""

    def use() -> None:
        base = without_filler(PoolImage.parse(image_of(local)).arrays())
        with open_soon(local, spec, timeout=TIMEOUT) as pool:
            found = without_filler({name: pool[name] for name in pool.names()})
        if any(not np.array_equal(found[name], base[name]) for name in base):
            raise Loss("the pool is not what it was")
        wait_unlocked(directory / "a.set")
        check_restored(directory, spec)

    if os.waitpid(in_child(use), 0)[1]:
        raise Loss("the pool could not be restored")


# --- chains -----------------------------------------------------------------------------------


def run_chains(
    kind: str, directories: Sequence[Path], seed: int, kills: int, breakage: int = 0
) -> list[Summary]:
    """Run one chain per directory, all at once; AssertionError with the words of one that failed.

    Parameters
    ----------
    kind : {"target", "initiator"}
        Whom they kill.
    directories : sequence of Path
        Empty; one per chain.
    seed : int
        Of the first; the others count on.
    kills : int
        Of each.
    breakage : int
        What the daemon is told to do wrong.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    root = str(Path(__file__).resolve().parents[2])
    chains = [
        subprocess.Popen(
            [*_COMMAND, kind, str(directory), str(seed + index), str(kills), str(breakage)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**environment, "PYTHONPATH": root},
        )
        for index, directory in enumerate(directories)
    ]
    outputs = [chain.communicate() for chain in chains]
    for index, (chain, (_, words)) in enumerate(zip(chains, outputs, strict=True)):
        if chain.returncode:
            raise AssertionError(f"{kind} chain, seed {seed + index}: {words[-6000:]}")
    return [Summary(**json.loads(output)) for output, _ in outputs]


def main() -> int:
    """Run a chain as the command line says."""
    kind, directory, seed, kills, breakage = sys.argv[1:]
    begun = time.monotonic()
    # A chain that leaks a descriptor per kill is found out by running out of them.
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    chain = {"target": kill_targets, "initiator": kill_initiators}[kind]
    try:
        command = lanes_of(int(seed), faulty_rpmemd.command(breakage=int(breakage)))
        summary = chain(Path(directory), int(seed), int(kills), command)
    except RpmemError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise
    summary.seconds = time.monotonic() - begun
    print(json.dumps(asdict(summary)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
