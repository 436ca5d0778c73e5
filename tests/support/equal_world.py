"""A pool on this machine, its replicas on two media, and what its initiator has promised of it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rpmem
from rpmem.base import environment
from rpmem.epochs.record import Mark
from rpmem.epochs.relation import Relation, relation
from tests.support import killing
from tests.support.mapped import mapped
from tests.support.media import PoolImage, image_of, parts_of, wait_unlocked
from tests.support.partition import Node, NoNamespaces
from tests.support.pools import OWN
from tests.support.powercut.model import Loss
from tests.support.sshd import NODE, SshdAbsent

SIZE = 8 << 20
PAGE = 4096
WORDS = 3000
#: Words of what nobody stores to.
STILL = 1 << 18
REPLICAS = ("one", "two")


class Journal(killing.Journal):
    """What the initiator says."""

    #: Rounds of ``kept``: stored, acknowledged. Rounds of ``loose``, of which nobody says when it
    #: is to be durable: stored, acknowledged, and shown by an open pool. Whether a bit of a replica
    #: is flipped.
    STORED, ACKNOWLEDGED, LOOSE, LOOSE_ACKNOWLEDGED, SHOWN, FLIPPED_ONE, FLIPPED_TWO = range(
        killing.Journal.MORE, killing.Journal.MORE + 7
    )

    def flipped(self, replica: str) -> int:
        """Return the field that says whether a bit of it is flipped."""
        return self.FLIPPED_ONE if replica == "one" else self.FLIPPED_TWO


def words_of(number: int) -> NDArray[np.uint64]:
    """Return what is stored in a round."""
    return np.arange(WORDS, dtype=np.uint64) | np.uint64(number << 32)


def still() -> NDArray[np.uint64]:
    """Return what is stored once."""
    return np.random.default_rng(14).integers(1 << 63, size=STILL, dtype=np.uint64)


def rounds_of(words: NDArray[np.uint64]) -> set[int]:
    """Return the rounds that words are of; `Loss` if they are of none."""
    if not np.array_equal(words & np.uint64((1 << 32) - 1), np.arange(WORDS)):
        raise Loss("words are none that were ever stored")
    return {int(word) for word in np.unique(words >> np.uint64(32))}


class World:
    """The files of all copies, and how they are reached.

    Parameters
    ----------
    fast, disk : Path
        Empty folders: of a tmpfs, of a disk. Local copy and second replica are on the disk; that
        one is behind a network that can be cut, where this machine can have one.
    """

    def __init__(self, fast: Path, disk: Path) -> None:
        self.here = disk / "here.pool"
        self.folders = {"one": fast / "one", "two": disk / "two"}
        for folder in self.folders.values():
            folder.mkdir()
        self.node: Node | None = None
        try:
            self.node = Node(disk / "sshd")
        except (NoNamespaces, SshdAbsent) as error:
            self.why = str(error)
        else:
            os.environ["RPMEM_SSH"] = str(self.node.sshd.ssh)
            environment.current.cache_clear()
            self.node.sshd.install_rpmemd(options=f"--poolset-dir {self.folders['two']}")

    def close(self) -> None:
        """Remove the network."""
        if self.node is not None:
            self.node.close()
            del os.environ["RPMEM_SSH"]
            environment.current.cache_clear()

    def spec(self, replica: str) -> str:
        """Return what names a replica."""
        if replica == "two" and self.node is not None:
            return f"{NODE} two.set"
        return f"local:{self.folders[replica]} {replica}.set"

    @property
    def session(self) -> Any:
        """How replicas are reached."""
        found: dict[str, Any] = {"nlanes": 1, "timeout": 3.0}
        if self.node is not None:
            found["launcher"] = "openssh"
        return found

    def set_of(self, replica: str) -> Path:
        """Return the pool set file of a replica."""
        return self.folders[replica] / f"{replica}.set"

    def make(self) -> None:
        """Make the pool."""
        specs = [rpmem.ReplicaSpec.parse(self.spec(each)) for each in REPLICAS]
        with rpmem.Pool.create(self.here, SIZE, specs, parts=1, **self.session) as pool:
            pool.array("kept", WORDS, "u8")[:] = words_of(0)
            pool.array("loose", WORDS, "u8")[:] = words_of(0)
            pool.array("still", STILL, "u8")[:] = still()
            pool.persist()

    def flip(self, replica: str, byte: int) -> None:
        """Flip a bit of what nobody stores to, in the file of a replica."""
        (part,) = parts_of(self.set_of(replica))
        offset = PoolImage.parse(image_of(self.here)).catalogue.entries["still"].offset + byte
        with part.open("r+b") as file:
            file.seek(offset)
            (before,) = file.read(1)
            file.seek(offset)
            file.write(bytes([before ^ 4]))

    def is_flipped(self, replica: str, byte: int) -> bool:
        """Whether that bit is not what it should be."""
        words = PoolImage.parse(image_of(self.set_of(replica))).arrays()["still"]
        return bytes(words.view(np.uint8)[byte : byte + 1]) != still().tobytes()[byte : byte + 1]

    # --- what has to hold -----------------------------------------------------------------

    def check(self, journal: Journal, counts: Counter[str]) -> None:
        """Compare what the copies hold, when nobody uses them, with what was promised.

        Parameters
        ----------
        journal : Journal
        counts : Counter
            What was seen is counted.
        """
        for each in REPLICAS:
            wait_unlocked(self.set_of(each), 60.0)
        here = PoolImage.parse(image_of(self.here))
        self._check_words("the local copy", here, journal)
        for each in REPLICAS:
            there = PoolImage.parse(image_of(self.set_of(each)))
            found = relation(there.record, here.record)
            counts[f"{found.value}, {there.record.mark.name}"] += 1
            if found is Relation.AHEAD:
                raise Loss(f"{each} is ahead of the copy that it came from")
            if there.record.mark is Mark.JOINING:
                continue
            if found is Relation.SAME:
                self._check_words(each, there, journal)
            differ = self._differing(here, there, flipped=bool(journal[journal.flipped(each)]))
            both = {here.record.mark, there.record.mark}
            if found is Relation.SAME and both == {Mark.CLEAN}:
                counts["equal"] += 1
                if differ:
                    raise Loss(f"{each} is clean and same, and differs in the pages {differ}")
            pages = mapped(here, there.record)
            if pages is not None:
                counts["mapped"] += 1
                counts["missed pages"] += len(differ)
                if not differ <= pages:
                    raise Loss(f"{each} differs in pages that are in no map: {differ - pages}")

    def _check_words(self, what: str, image: PoolImage, journal: Journal) -> None:
        arrays = image.arrays()
        for name, least, most in (
            ("kept", journal[Journal.ACKNOWLEDGED], journal[Journal.STORED]),
            (
                "loose",
                max(journal[Journal.LOOSE_ACKNOWLEDGED], journal[Journal.SHOWN]),
                journal[Journal.LOOSE],
            ),
        ):
            found = rounds_of(arrays[name])
            if not all(least <= each <= most for each in found):
                raise Loss(f"{what}: {name} is of the rounds {sorted(found)}, not {least}..{most}")

    def _differing(self, here: PoolImage, there: PoolImage, *, flipped: bool) -> set[int]:
        mine, theirs = (
            np.frombuffer(each.image, np.uint8, SIZE).reshape(-1, PAGE) for each in (here, there)
        )
        pages = set(np.flatnonzero((mine != theirs).any(axis=1)).tolist())
        pages -= set(range(OWN // PAGE))
        if flipped:
            entry = here.catalogue.entries["still"]
            pages -= set(range(entry.offset // PAGE, (entry.offset + entry.length) // PAGE + 1))
        return pages
