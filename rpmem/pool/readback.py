"""Reading a whole pool from its copies into new memory, every byte of it checked.

Several threads take piece after piece: while one reads, another waits for a target that takes
digests of what it holds, and takes those of what was read. A copy that is lost, or that sends what
it does not hold, is relied upon no more, and the others go on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from rpmem.base import interrupts
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.errors import CopyCorrupt, RpmemError
from rpmem.pool.differences import BLOCK, PAGE
from rpmem.pool.disputes import Disputes, Undecided, Wanted
from rpmem.pool.progress import Progress, chunk_of
from rpmem.pool.restoration import PIECE, Part, Restoration

if TYPE_CHECKING:
    from rpmem.memory.region import Region
    from rpmem.pool.keepers import ReplicaKeeper

log = logging.getLogger(__name__)

_KEY_SIZE: Final = 32
#: Threads for each copy: one reads while the target of another one takes digests.
_THREADS: Final = 2
_MOST_THREADS: Final = 8


class ReadBack:
    """Reads everything that the copies of a pool have in common.

    Parameters
    ----------
    region : Region
        What is read into; nobody else uses it.
    sources : sequence of ReplicaKeeper
        Connected copies of one epoch, the best first. If there are several, all of them compare.
    size : int
        Of the pool.
    equal : bool
        All of them were closed in that epoch.
    in_use : callable
        Tells what lies in a range of the pool, given its offset and length; "": nothing does.
    progress : callable
        Told what is done; what it raises ends the reading.
    """

    def __init__(
        self,
        region: Region,
        sources: Sequence[ReplicaKeeper],
        size: int,
        *,
        equal: bool,
        in_use: Callable[[int, int], str],
        progress: Progress,
    ) -> None:
        self._region = region
        self._sources = {each.named: each for each in sources}
        self._size = size
        self._equal = equal
        self._in_use = in_use
        self._progress = progress
        self._what = f"{', '.join(self._sources)}: reading the whole pool"
        self._key = os.urandom(_KEY_SIZE)
        self._plan = Restoration(
            POOL_FLOOR, size, list(self._sources), piece=min(PIECE, chunk_of(progress))
        )
        self._lock = threading.Lock()
        self._over = False
        self._failure: RpmemError | None = None

    def run(self) -> set[str]:
        """Read; return the names of the copies that do not hold all that was read.

        Raises
        ------
        CopyCorrupt
            What arrived is not what any of the copies holds, or nobody knows which of them is
            right.
        ReplicaLost, DeadlineExceeded, FlushFailed
            No copy is left.
        """
        self._progress(0, self._size - POOL_FLOOR, self._what)
        count = min(_THREADS * len(self._sources), _MOST_THREADS)
        with ThreadPoolExecutor(count, thread_name_prefix="rpmem-reading") as pool:
            futures = [pool.submit(interrupts.shared(self._work)) for _ in range(count)]
        for future in futures:
            future.result()
        return self._decide()

    def _work(self) -> None:
        """Read piece after piece, until nothing is left or another thread has failed."""
        try:
            while (part := self._take()) is not None:
                interrupts.check()
                self._read(part)
        except BaseException:
            self._over = True
            raise

    def _take(self) -> Part | None:
        with self._lock:
            if self._over:
                return None
            self._need_live()
            return self._plan.take()

    def _read(self, part: Part) -> None:
        """Read a piece and compare it with what the copies hold."""
        try:
            self._fetch(part.source, part.offset, part.length)
            said = self._digests(part)
        except RpmemError as error:
            self._drop(part.source, error)
            with self._lock:
                self._plan.give_back(part)
            return
        mine, theirs = said
        with self._lock:
            good = self._plan.check(part, mine, theirs)
            if good:
                self._progress(self._plan.done_bytes, self._size - POOL_FLOOR, self._what)
            else:
                self._plan.give_back(part)
        if not good:
            self._drop(part.source, _changed(part.source, part.offset, part.length))

    def _fetch(self, source: str, offset: int, length: int) -> None:
        self._region.populate(offset, length)
        with memoryview(self._region) as view, view[offset : offset + length] as piece:
            self._sources[source].replica.read(piece, offset)

    def _digests(self, part: Part) -> tuple[bytes, dict[str, bytes]]:
        """Return digests of what was read, and those of all copies by their names."""
        asked = (part.offset, part.length, BLOCK)
        replica = self._sources[part.source].replica
        if not replica.compares:
            return b"", {part.source: b""}
        mine, theirs = replica.digests(asked, self._key, _nothing)
        said = {part.source: theirs}
        for other in [each for each in self._plan.live if each != part.source]:
            try:
                said[other] = self._sources[other].replica.digests(asked, self._key, _nothing)[1]
            except RpmemError as error:
                self._drop(other, error)
        return mine, said

    def _drop(self, source: str, error: RpmemError) -> None:
        """Rely upon a copy no more; it counts as lost."""
        replica = self._sources[source].replica
        if replica.failure is None:
            replica.on_failure(error)
        with self._lock:
            if source in self._plan.live:
                log.warning("%s: nothing is read from it any more: %s", source, error)
            self._plan.drop(source)
            self._failure = error

    # --- what not all copies hold alike ---------------------------------------------------

    def _decide(self) -> set[str]:
        """Look at what differs page by page, and read again what was read wrongly."""
        if not self._plan.disputed:
            return set()
        asked = [(span, *self._pages(*span)) for span in self._plan.disputed]
        live = self._need_live()
        disputes = Disputes(live, equal=self._equal)
        for span, mine, said in asked:
            disputes.take(*span, mine, {source: said[source] for source in live})
        try:
            wanted = disputes.settle(lambda *span: bool(self._in_use(*span)))
        except Undecided as error:
            raise self._undecided(error.offsets) from None
        log.info("%s: %d pages are read again", self._what, len(wanted))
        for page in wanted:
            self._read_again(page)
        return disputes.unequal

    def _pages(self, offset: int, length: int) -> tuple[bytes, dict[str, bytes]]:
        """Return digests of the pages of a block: of what was read, and those of all copies."""
        mine, said = b"", {}
        for source in list(self._plan.live):
            replica = self._sources[source].replica
            try:
                mine, said[source] = replica.digests((offset, length, PAGE), self._key, _nothing)
            except RpmemError as error:
                self._drop(source, error)
        return mine, said

    def _need_live(self) -> list[str]:
        if not self._plan.live:
            assert self._failure is not None
            raise self._failure
        return list(self._plan.live)

    def _read_again(self, page: Wanted) -> None:
        """Read a page from a copy that holds what counts."""
        asked = (page.offset, page.length, PAGE)
        for source in page.holders:
            try:
                self._fetch(source, page.offset, page.length)
                mine, _ = self._sources[source].replica.digests(asked, self._key, _nothing)
            except RpmemError as error:
                self._drop(source, error)
                continue
            if mine == page.digest:
                return
            self._drop(source, _changed(source, page.offset, page.length))
        assert self._failure is not None
        raise self._failure

    def _undecided(self, offsets: list[int]) -> CopyCorrupt:
        places = dict.fromkeys(self._in_use(offset, PAGE) for offset in offsets)
        return CopyCorrupt(
            f"the copies were closed in the same epoch and differ in {len(offsets)} pages, the "
            f"first at {offsets[0]} ({', '.join(filter(None, places))}); nobody knows which of "
            "them is right",
            where=", ".join(self._plan.live),
            hint="Restore from three copies, or from the one that you trust, and name the other "
            "one in lost=[...]",
        )


def _nothing() -> None:
    """Do nothing besides."""


def _changed(source: str, offset: int, length: int) -> CopyCorrupt:
    return CopyCorrupt(
        f"what arrived of the {length} bytes at {offset} is not what the copy holds",
        where=source,
        hint="Its machine, ours or the network between them changes data: check them, and restore "
        "from another copy or again",
    )
