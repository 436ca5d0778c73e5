"""What is done with a cut: copies are opened, restored from and attached, and have to be whole."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

import rpmem
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.errors import (
    CatalogueCorrupt,
    HeaderError,
    PoolSetError,
    PoolSetNotFound,
    RpmemError,
    SplitBrain,
    StaleReplica,
)
from rpmem.pool.local import FilePlace
from tests.support.crashpoints.operations import Operation
from tests.support.crashpoints.world import (
    HERE,
    LOOSE,
    MACHINES,
    NEW,
    ONE,
    PARTS,
    REPLICAS,
    SESSION,
    TWO,
    Moment,
    Rounds,
    check_rounds,
    create,
    set_of,
    spec_of,
    words_of,
)
from tests.support.media import PoolImage, image_of, record_in
from tests.support.powercut.model import Loss

#: How an interrupted creation shows.
_INCOMPLETE = (PoolSetError, HeaderError, CatalogueCorrupt)
_ROUND = 1 << 20


class Look:
    """What is done with one image.

    Parameters
    ----------
    operation : Operation
        That was cut off.
    moment : Moment
        When it was.
    root : str
        Where the machines' folders are.
    where, counts
        For errors; and for what came of it.
    here : str
        The machine of the local copy, once the operation is over.
    position : int
        After how many events it was cut off.
    """

    def __init__(
        self,
        operation: Operation,
        moment: Moment,
        root: str,
        where: str,
        counts: Counter[str],
        *,
        here: str,
        position: int = 0,
    ) -> None:
        self.operation = operation
        self.moment = moment
        self.position = position
        self.root = root
        self.where = where
        self.counts = counts
        self.ended = position >= moment.end
        self.here = here
        # Replicas that were there when everything was stored anew.
        self._used: Sequence[str] | None = None
        self._names: list[str] = []
        if here == NEW and not os.path.exists(set_of(root, NEW)):
            self.here = HERE

    def may(self, machine: str) -> list[Rounds]:
        """Return what a machine may have."""
        if self._used is not None and machine in (self.here, NEW, *self._used):
            return [dict.fromkeys(self._names, frozenset((_ROUND,)))]
        found = self.moment.may(machine, self.position)
        if machine in self.operation.joins and not self.ended:
            # It is being overwritten with what the local copy has.
            found = found + self.moment.may(self.here, self.position)
        return found

    def spec(self, replica: str) -> str:
        """Return what names a replica."""
        return spec_of(self.root, replica)

    def records(self) -> dict[str, CopyRecord]:
        """Return the records of all copies that have one."""
        found = {}
        for machine in MACHINES:
            with suppress(*_INCOMPLETE, OSError):
                record = record_in(image_of(Path(set_of(self.root, machine))))
                if record is not None:
                    found[machine] = record
        return found

    def check_same(self, *, strict: bool = False) -> None:
        """Raise `Loss` where two clean copies of one epoch differ."""
        images: dict[bytes, list[tuple[str, bytes]]] = {}
        for machine, record in self.records().items():
            if record.mark is Mark.CLEAN:
                image = image_of(Path(set_of(self.root, machine)))
                images.setdefault(record.epoch.identity, []).append((machine, image))
        for (one, first), *others in images.values():
            for other, second in others:
                self.counts["clean copies compared"] += 1
                if _shared(first, strict) != _shared(second, strict):
                    raise Loss(f"{self.where}: {one} and {other} are clean, and differ")

    # --- ways ---------------------------------------------------------------------------------

    def open_all(self) -> None:
        """Open all copies, as one would after a crash."""
        self._open((*self._members(),))

    def open_some(self, members: Sequence[str]) -> None:
        """Open some of them, and then all."""
        if not self._exists(self.here):
            self.open_all()
            return
        there = [each for each in members if self._exists(each)]
        self._open(there, whole=False)
        self._open((*self._members(),))

    def restore(self, replica: str) -> None:
        """Restore from a replica; then bring in the other one, and refuse the old local copy."""
        if not self._exists(replica):
            self.open_all()
            return
        path = os.path.join(self.root, "restored.pool")
        try:
            pool = rpmem.Pool.restore(
                path, self.spec(replica), lost=self._others(replica), **SESSION
            )
        except (StaleReplica, *_INCOMPLETE) as error:
            if replica not in self.operation.joins or self.ended:
                raise
            self._count(f"restore refused, {type(error).__name__}")
            self._check_text(error)
            self.open_all()
            return
        with pool:
            self._check(pool, replica)
            for other in REPLICAS:
                if other != replica and self._exists(other):
                    self._attach(pool, other)
            self._use(pool)
        self._refuse_old(replica)

    def _refuse_old(self, replica: str) -> None:
        """The local copy of before is out of date, and must not overwrite anything."""
        if not self._exists(self.here):
            return
        before = image_of(Path(set_of(self.root, replica)))
        try:
            rpmem.Pool.open(set_of(self.root, self.here), self.spec(replica), **SESSION).close()
        except (StaleReplica, SplitBrain, *_INCOMPLETE) as error:
            self._count(f"old local copy refused, {type(error).__name__}")
            if isinstance(error, SplitBrain) and not self.operation.apart:
                raise
            if image_of(Path(set_of(self.root, replica))) != before:
                raise Loss(f"{self.where}: the refusal changed {replica}") from None
            return
        raise Loss(f"{self.where}: an old local copy overwrote {replica}")

    # --- steps --------------------------------------------------------------------------------

    def _members(self) -> list[str]:
        if self.here == NEW:
            return [ONE]
        return [each for each in REPLICAS if self._exists(each)]

    def _exists(self, machine: str) -> bool:
        """Whether there may be a copy that one would name."""
        if not os.path.exists(set_of(self.root, machine)):
            return False
        return None not in self.may(machine)

    def _open(self, members: Sequence[str], *, whole: bool = True) -> None:
        path = set_of(self.root, self.here)
        try:
            pool = self._opened(path, members)
        except _INCOMPLETE as error:
            if None not in self.may(self.here):
                raise
            self._count(f"no pool, {type(error).__name__}")
            self._check_text(error)
            self._begin_again()
            return
        with pool:
            self._check(pool, self.here)
            for index, member in enumerate(members):
                self._check_replica(pool, index, member)
            if whole:
                for each in REPLICAS:
                    if each not in members and self.moment.after[each] is not None:
                        self._attach(pool, each)
            self._use(pool)
        self._check_equal([self.here, *members])

    def _opened(self, path: str, members: Sequence[str]) -> rpmem.Pool:
        specs = [self.spec(each) for each in members]
        try:
            return rpmem.Pool.open(path, specs, **SESSION)
        except (SplitBrain, StaleReplica, CatalogueCorrupt) as error:
            together = self.ended and len(members) == len(self._members())
            if not self.operation.apart or (together and self._used is None):
                raise
            self._count(f"open refused, {type(error).__name__}")
            self._check_text(error)
            return rpmem.Pool.open(path, specs, discard=specs, **SESSION)

    def _attach(self, pool: rpmem.Pool, replica: str) -> None:
        """Bring in a replica; one that was never finished is removed first."""
        try:
            pool.attach(self.spec(replica))
        except (SplitBrain, StaleReplica) as error:
            if not self.operation.apart:
                raise
            self._count(f"attach refused, {type(error).__name__}")
            self._check_text(error)
            pool.attach(self.spec(replica), discard=True)
        except _INCOMPLETE as error:
            if not any(option is None for option in self.may(replica)):
                raise
            self._count(f"attach refused, {type(error).__name__}")
            self._check_text(error)
            target = f"local:{os.path.join(self.root, replica)}"
            with suppress(PoolSetNotFound):
                rpmem.remove(target, "r.set", pool_set=True, force=True)
            pool.attach(self.spec(replica), create=True, parts=PARTS[replica])
        else:
            self._count("attached")

    def _others(self, replica: str) -> list[str]:
        return [self.spec(each) for each in REPLICAS if each != replica]

    def _begin_again(self) -> None:
        """There was no pool before: it is made as if for the first time."""
        if self.here == NEW or self.operation.name == "restore":
            lost = self._others(ONE)
            with rpmem.Pool.restore(
                set_of(self.root, NEW), self.spec(ONE), lost=lost, **SESSION
            ) as pool:
                self._check(pool, ONE)
                self._use(pool)
            return
        try:
            pool = create(self.root, ONE, TWO)
        except PoolSetError as error:
            self._count(f"create refused, {type(error).__name__}")
            self._check_text(error)
            with suppress(PoolSetNotFound):
                FilePlace(set_of(self.root, HERE)).remove(force=True)
            for each in REPLICAS:
                with suppress(PoolSetNotFound):
                    target = f"local:{os.path.join(self.root, each)}"
                    rpmem.remove(target, "r.set", pool_set=True, force=True)
            pool = create(self.root, ONE, TWO)
        with pool:
            if pool.names():
                raise Loss(f"{self.where}: a new pool has arrays")
        self._check_equal([HERE, ONE, TWO])

    def _check(self, pool: rpmem.Pool, machine: str) -> None:
        found = {name: np.array(pool[name]) for name in pool.names()}
        check_rounds(self.may(machine), found, f"{self.where}: {machine}")

    def _check_replica(self, pool: rpmem.Pool, index: int, machine: str) -> None:
        found = {name: pool.read(pool[name], replica=index) for name in pool.names()}
        # It equals the local copy, apart from what was never persisted.
        mine = {name: np.array(pool[name]) for name in pool.names()}
        for name, words in found.items():
            if name != LOOSE and not np.array_equal(words, mine[name]):
                raise Loss(f"{self.where}: {name} of {machine} is not what the local copy has")
        options = self.may(machine) + self.may(self.here)
        check_rounds(options, found, f"{self.where}: {machine} behind it")

    def _use(self, pool: rpmem.Pool) -> None:
        """Go on: store something new, and persist all there is."""
        for name in pool.names():
            pool[name][:] = words_of(_ROUND)
        pool.persist()
        self._names = pool.names()
        if self._names:
            self._used = [each.target.local_directory.rpartition("/")[2] for each in pool.replicas]

    def _check_equal(self, machines: Sequence[str]) -> None:
        records = self.records()
        first = records[machines[0]]
        for each in machines:
            record = records[each]
            if record.mark is not Mark.CLEAN or record.epoch != first.epoch:
                raise Loss(f"{self.where}: closed, {each} says {record}, {machines[0]} {first}")
        self.check_same(strict=True)

    def _check_text(self, error: RpmemError) -> None:
        if not error.hint or not error.where:
            raise Loss(f"{self.where}: the error says too little: {error!r}")

    def _count(self, what: str) -> None:
        self.counts[f"{self.operation.name}: {what}"] += 1


def _shared(image: bytes, strict: bool) -> bytes:
    """Return what copies have in common; without `strict` not the words that nobody persisted."""
    pool = PoolImage.parse(image)
    found = bytearray(image[: pool.layout.pool_size])
    entry = pool.catalogue.entries.get(LOOSE)
    if entry is not None and not strict:
        found[entry.offset : entry.offset + entry.length] = bytes(entry.length)
    return bytes(found[POOL_FLOOR:])
