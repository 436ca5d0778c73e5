"""Run the tests of tests/rdma in an emulated machine; see --help."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.rdma.bench import cuts, figures, guest, initramfs, kernel, project, userland
from tests.rdma.bench.cache import Cache
from tests.rdma.bench.report import BenchError, Unavailable, labelled, say, show, step

# A run that takes longer than this has hung.
_LIMIT, _SLOW_LIMIT = 900.0, 3600.0
# With the older kernel, not what would be the same again: it has no two hosts to offer.
_ONCE = ("trouble", "verbs", "hostile", "leaks", "originals", "pmdk")
_GUEST_TESTS = {
    "lts": [
        "tests/rdma",
        *(f"--ignore=tests/rdma/test_{name}.py" for name in _ONCE),
        "tests/unit/memory/test_dax.py",
    ],
    "new": ["tests/rdma", "tests/unit/memory/test_dax.py"],
}
_PYTEST = "exec python3 -P -m pytest -p no:cacheprovider "


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/test-rdma",
        description="Run the tests that need RDMA and persistent memory in an emulated machine.",
        epilog="Everything else on the command line is for pytest in the guest, "
        "such as -k NAME or tests/rdma/test_x.py; with --figures for benchmarks.rdma.",
    )
    add = parser.add_argument
    add("--kernel", choices=[*kernel.KERNELS, "both"], default="both", help="default: both")
    add("--command", help="run this shell command in the guest, not pytest")
    add("--cuts", type=int, metavar="N", help="power cuts of each kind (default: 2 in a full run)")
    add("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of the cuts")
    add("--slow", action="store_true", help="also the tests that repeat what others show")
    add("--quick", action="store_true", help="without the ordinary tests in the userland")
    add("--fetch", action="store_true", help="only fill the cache")
    add("--cache", type=Path, default=Cache.default(), help=f"default: {Cache.default()}")
    add("--steady", action="store_true", help="one processor, and a clock that counts instructions")
    add("--figures", action="store_true", help="measure instead, and write docs/benchmarks-rdma.md")
    cores = len(os.sched_getaffinity(0))
    add("--jobs", type=int, default=min(2, cores), metavar="N", help="guests at once (default: 2)")
    add("--keep", type=Path, help="leave disks and logs in this folder")
    options, options.pytest = parser.parse_known_args()
    if options.figures:
        options.kernel = "new"
    return options


def _prepare(options: argparse.Namespace, work: Path) -> tuple[Path, list[guest.Machine]]:
    """Fetch and build what is missing; return the userland and the machines."""
    guest.qemu()
    names = list(kernel.KERNELS) if options.kernel == "both" else [options.kernel]
    cache = Cache(options.cache.absolute())
    with cache.locked():
        root, disk = userland.get(cache)
        kernels = [kernel.get(cache, name) for name in names]
        first = [initramfs.get(cache, each) for each in kernels]
        tree = project.build(root)
    return root, [
        guest.Machine(each, path, disk, tree, work / each.name, options.steady)
        for each, path in zip(kernels, first, strict=True)
    ]


def _hosts(machine: guest.Machine) -> int:
    return 2 if machine.kernel.name == "new" else 1


def _run(machine: guest.Machine, command: str, limit: float) -> int:
    """Run a command in one guest; return its exit status."""
    with step(f"guest with Linux {machine.kernel.release}"):
        outcome = guest.run(
            machine,
            command,
            output=show,
            limit=limit,
            hosts=_hosts(machine),
        )
        for line in outcome.complaints:
            say(f"the guest's kernel complained: {line}")
        if outcome.late:
            raise BenchError(f"the command was not done within {limit:g} s")
        if outcome.status is None:
            raise BenchError("the guest ended before the command did")
    return outcome.status


def _cut(machine: guest.Machine, number: int, seed: int, cases: Sequence[cuts.Case]) -> int:
    """Cut the power; return an exit status."""
    return int(not cuts.run(machine, number, seed, _hosts(machine), cases))


def _jobs(
    options: argparse.Namespace, root: Path, machines: list[guest.Machine]
) -> dict[str, Callable[[], int]]:
    """Return what is to be done, each of which returns an exit status; the longest first."""
    chosen = bool(options.command or options.pytest)
    jobs: dict[str, Callable[[], int]] = {}
    for machine in reversed(machines):
        tests = options.pytest or _GUEST_TESTS[machine.kernel.name]
        if options.slow:
            tests = [*tests, "-m", "slow or not slow"]
        command = options.command or _PYTEST + shlex.join(tests)
        limit = _SLOW_LIMIT if options.slow else _LIMIT
        jobs[machine.kernel.name] = partial(_run, machine, command, limit)
    if not (chosen or options.quick):
        jobs["ordinary"] = lambda: int(not project.test(root))
    cut = options.cuts if options.cuts is not None else 0 if chosen else 2
    if cut:
        last = machines[-1]
        # Two machines, so that both processors of this one are of use.
        for name, cases in (("cuts a", cuts.CASES[::2]), ("cuts b", cuts.CASES[1::2])):
            jobs[name] = partial(_cut, last, cut, options.seed, cases)
    return jobs


def _status(name: str, job: Callable[[], int], alone: bool) -> int:
    """Do one job; a bench that does not work is an exit status, too."""
    with contextlib.nullcontext() if alone else labelled(name):
        try:
            return job()
        except BenchError as error:
            say(f"{name}: {error}")
            return 1


def _all(jobs: dict[str, Callable[[], int]], at_once: int) -> dict[str, int]:
    """Do all jobs; a guest keeps hardly more than one processor busy."""
    alone = at_once == 1 or len(jobs) == 1
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        futures = {name: pool.submit(_status, name, job, alone) for name, job in jobs.items()}
        return {name: future.result() for name, future in futures.items()}


def _main() -> int:
    options = _options()
    work = options.keep.absolute() if options.keep else Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        root, machines = _prepare(options, work)
        if options.fetch:
            return 0
        if options.figures:
            figures.run(machines[-1], options.pytest)
            return 0
        statuses = _all(_jobs(options, root, machines), options.jobs)
    except Unavailable as error:
        print(f"bench: the tests that need RDMA were not run\n    1  {error}\n1 skipped")
        return 0
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    for name, status in statuses.items():
        say(f"{name}: {'good' if status == 0 else f'FAILED (exit {status})'}")
    return next((status for status in statuses.values() if status), 0)


if __name__ == "__main__":
    sys.exit(_main())
