"""The course of ``rpmem demo``, from an empty directory to every byte restored."""

from __future__ import annotations

import random
import secrets
import shutil
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rpmem.base.target import ReplicaSpec, Target
from rpmem.demo import picture
from rpmem.demo.measure import Latencies, measure
from rpmem.demo.stream import Killer, Stream
from rpmem.errors import MissingExtension, RpmemError
from rpmem.pool.pool import Pool
from rpmem.session import start as session
from rpmem.terminal.tables import readable, table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

_PARTS = 2
_WIDTH = 80
_KILL_AFTER = (0.3, 0.9)
_WAKE_LIMIT = 2.0
_PARTICLE = np.dtype([("id", "<u4"), ("position", "<f4", (3,)), ("energy", "<f8")])


def run(console: Console, target: str | None, directory: str | None, size: str, image: str) -> bool:
    """Run the whole demonstration.

    Parameters
    ----------
    console : Console
        Where to print.
    target : str or None
        Where the replica is; None: a child process of this one, without ssh.
    directory : str or None
        For the files; None: a temporary one, removed at the end.
    size : str
        Size of the pool.
    image : str
        The picture to write.

    Returns
    -------
    bool
        Whether all promises were kept.
    """
    with _workplace(directory) as place:
        spec = _replica(target, place)
        local = place / "pool"
        try:
            return _Story(console, local, spec, size, image).tell()
        finally:
            local.unlink(missing_ok=True)
            _remove(spec)


class _Story:
    def __init__(
        self, console: Console, local: Path, spec: ReplicaSpec, size: str, image: str
    ) -> None:
        self.console = console
        self.local = local
        self.spec = spec
        self.size = size
        self.image = image
        self.promised: dict[str, NDArray[Any]] = {}

    def tell(self) -> bool:
        stream = Stream()
        self._title(f"A pool of {self.size} with a replica")
        with self._create() as pool:
            self._title("Named arrays, made durable on both sides")
            self._fill(pool)
            self._title("Time of a persist, compared with msync of a local file (microseconds)")
            self._measure(pool)
            self._title("The target is killed (SIGKILL) during a stream of persists")
            held = self._kill(pool, stream)
        self._title("The local pool is deleted, and restored from the replica by name")
        self.local.unlink()
        return self._restore(stream) and held

    def _title(self, text: str) -> None:
        self.console.print(f"\n{text}", style="bold")

    def _say(self, text: str, indent: int = 2) -> None:
        width = min(self.console.width, _WIDTH) - indent
        for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
            self.console.print(" " * indent + line, soft_wrap=True)

    # --- a pool and its arrays ------------------------------------------------------------

    def _create(self) -> Pool:
        started = time.perf_counter()
        pool = Pool.create(self.local, self.size, self.spec, parts=_PARTS)
        seconds = time.perf_counter() - started
        (replica,) = pool.replicas
        self._say(f"local    {pool.where}, medium {pool.medium}")
        self._say(f"replica  {self.spec.pool_set}, {_PARTS} parts, medium {replica.medium}")
        self._say(f"target   {_place_name(self.spec.target)}")
        self._say(
            f"session  {replica.provider}, {replica.nlanes} lanes, {replica.step}; "
            f"acknowledged means {replica.level}"
        )
        self._say(f"created on both sides in {seconds:.2f} s")
        return pool

    def _fill(self, pool: Pool) -> None:
        dice = np.random.default_rng(0)
        matrix = pool.array("matrix", (512, 1024))
        matrix[:] = dice.random(matrix.shape)
        self._persist(pool, "matrix, float64", matrix)
        particles = pool.array("particles", 10_000, _PARTICLE)
        particles["id"] = np.arange(len(particles))
        particles["position"] = dice.random((len(particles), 3))
        particles["energy"] = dice.random(len(particles))
        self._persist(pool, "particles, a structured array", particles)
        matrix[:, 7] = -1
        self._persist(pool, "matrix[:, 7], a strided view", matrix[:, 7])
        self._promise("matrix", matrix)
        self._promise("particles", particles)

    def _promise(self, name: str, array: NDArray[Any]) -> None:
        self.promised[name] = array.copy()

    def _persist(self, pool: Pool, what: str, view: NDArray[Any]) -> None:
        started = time.perf_counter()
        pool.persist(view)
        milliseconds = (time.perf_counter() - started) * 1e3
        shape = " x ".join(map(str, view.shape))
        self.console.print(
            f"  {what:30} {shape:>12} {readable(view.nbytes):>10} {milliseconds:8.1f} ms"
        )

    # --- how long it takes ----------------------------------------------------------------

    def _measure(self, pool: Pool) -> None:
        latencies = measure(pool, self.local.parent)
        self._promise("scratch", pool["scratch"])
        self.console.print(_latency_table(latencies))
        try:
            picture.save(latencies, self.image, f"replica on {_place_name(self.spec.target)}")
        except MissingExtension as error:
            self._say(f"no picture: {error}")
        else:
            self._say(f"picture: {self.image}")

    # --- the end of the target ------------------------------------------------------------

    def _kill(self, pool: Pool, stream: Stream) -> bool:
        (replica,) = pool.replicas
        killer = Killer(replica, random.uniform(*_KILL_AFTER))
        stream.run(pool, killer)
        if stream.error is None:
            self._say(f"it could not be killed: {killer.failure}")
            return False
        self._say(f"{stream.acknowledged} persists had been acknowledged")
        self._say(
            f"{stream.silence * 1e3:.0f} ms later, the caller got {type(stream.error).__name__}:"
        )
        self._say(str(stream.error), indent=4)
        if stream.silence > _WAKE_LIMIT:
            self._say(f"that is too late: at most {_WAKE_LIMIT:g} s are allowed")
            return False
        return True

    # --- everything back ------------------------------------------------------------------

    def _restore(self, stream: Stream) -> bool:
        started = time.perf_counter()
        with Pool.restore(self.local, self.spec) as pool:
            seconds = time.perf_counter() - started
            self._say(f"{', '.join(pool)}: back in {seconds:.2f} s")
            wrong = stream.check(pool["ledger"])
            checked = pool["ledger"].nbytes
            for name, promised in self.promised.items():
                wrong += int((pool[name] != promised).sum()) * promised.itemsize
                checked += promised.nbytes
        self._say(f"{checked} acknowledged bytes compared, {wrong} wrong")
        return wrong == 0


def _latency_table(latencies: list[Latencies]) -> Any:
    columns = ("persist p50", "p99", "msync p50", "msync p99", "calls")
    shown = table("bytes", *columns, right=("bytes", *columns))
    for each in latencies:
        values = [
            np.percentile(times, share)
            for times in (each.persist, each.msync)
            for share in (50, 99)
        ]
        shown.add_row(
            readable(each.size), *(f"{value:.0f}" for value in values), str(len(each.persist))
        )
    return shown


@contextmanager
def _workplace(directory: str | None) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="rpmem-demo-", dir=directory))
    try:
        yield made.resolve()
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _replica(target: str | None, place: Path) -> ReplicaSpec:
    name = f"rpmem-demo-{secrets.token_hex(4)}.set"
    if target is not None:
        return ReplicaSpec(Target.parse(target), name)
    directory = place / "target"
    directory.mkdir()
    return ReplicaSpec(Target(is_local=True, local_directory=str(directory)), name)


def _place_name(target: Target) -> str:
    return "this machine, a child process" if target.is_local else str(target)


def _remove(spec: ReplicaSpec) -> None:
    """Remove the replica, whatever the outcome."""
    try:
        session.remove(spec.target, spec.pool_set, force=True, pool_set=True)
    except RpmemError:
        return
