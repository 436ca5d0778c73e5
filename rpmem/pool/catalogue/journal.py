"""How a record comes to count: it goes behind the log, and the root is moved behind it.

A short one, which is what most are, goes into the slot of the root as well, so that both become
durable at once: a change costs as much as making that many bytes durable. A longer one, or one that
needs room that has to be zeroed, or a new extent, is durable before the root is stored.

The log (`rpmem.pool.catalogue.log`) lies in extents that are taken from the same room as those of
the arrays, and is written anew when most of it is about what is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from rpmem.errors import PoolFull, RpmemError
from rpmem.pool.catalogue.extents import PAGE_ALIGNMENT, Free, room, round_up
from rpmem.pool.catalogue.log import Log, Write
from rpmem.pool.catalogue.medium import Medium
from rpmem.pool.catalogue.records import Contents
from rpmem.pool.catalogue.root import ROOT_SIZE, Found, Root
from rpmem.pool.superblock import SLOT_COUNT, Layout


class Journal:
    """The log and the root of a catalogue, what they say, and the room that they leave.

    Parameters
    ----------
    medium : Medium
        The copy that was read.
    layout : Layout
        Its superblock.
    found : Found
        Its root.
    content : tuple of Log and Contents
        Its log.
    """

    def __init__(
        self, medium: Medium, layout: Layout, found: Found, content: tuple[Log, Contents]
    ) -> None:
        self._medium = medium
        self._layout = layout
        self._root, self._slot, self._whole = found
        self._log, self._contents = content
        self._distrusts_zeros = False
        self._failure: RpmemError | None = None
        taken = self._contents.extents() + self._log.spans
        self._free = Free(layout.data_start, layout.pool_size, taken)
        self._spare: tuple[int, int] | None = None
        self._keep_spare()

    # --- zeros ----------------------------------------------------------------------------

    @property
    def mark(self) -> int:
        """The offset above which every byte is zero, on every copy."""
        return self._layout.pool_size if self._distrusts_zeros else self._root.mark

    def _doubtful(self, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return what of some extents may not be zero, as few offsets and lengths as there are."""
        mark = self.mark
        found: list[tuple[int, int]] = []
        for begin, end in spans:
            if begin >= mark:
                continue
            last = min(end, mark)
            if found and sum(found[-1]) == begin:
                found[-1] = (found[-1][0], last - found[-1][0])
            else:
                found.append((begin, last - begin))
        return found

    def _clear(self, ranges: Sequence[tuple[int, int]]) -> None:
        for offset, length in ranges:
            self._medium.zero(offset, length)
        self._spread(ranges)

    def spare_room(self, length: int, count: int) -> list[int]:
        """Return where so many pieces of room are, of so many bytes each; fewer if there is not.

        They stay free, and are below the mark: what is stored there lasts until the next change.
        """
        found: list[int] = []
        with suppress(PoolFull):
            while len(found) < count:
                found.append(self._free.take(length, PAGE_ALIGNMENT))
        for offset in found:
            self._free.give_back(offset, offset + room(length))
        if found and max(found) + length > self._root.mark:
            self._publish(mark=max(found) + length)
            # A replica that is lost has missed this, too.
            self._failure = None
        return found

    # --- the log and its root -------------------------------------------------------------

    def _append(
        self,
        record: bytes,
        *,
        zeros: Sequence[tuple[int, int]] = (),
        added: int = 0,
        more: int = 0,
        mark: int = 0,
    ) -> None:
        """Let a record count, durably everywhere.

        Parameters
        ----------
        record : bytes
            The record.
        zeros : sequence of (int, int)
            What has to be zero before.
        added : int
            Arrays that it adds.
        more : int
            Bytes that it will take to remove these.
        mark : int
            End of their extents.
        """
        reserve = self._contents.reserve + more
        if self._log.lacks(len(record) + reserve) and self._is_worth_it():
            self._write_anew(len(record) + more)
        grown, writes = self._log.grown(record, reserve, self._extent)
        beside: Sequence[Write] = ()
        if (
            not zeros
            and len(writes) == 1
            and ROOT_SIZE + len(record) <= self._layout.slot_size
            and grown.end <= self._root.mark
        ):
            beside = writes
        try:
            if not beside:
                self._store(writes, max(grown.spans[-1][1], mark), zeros)
            self._publish(grown, record=record, added=added, mark=mark, beside=beside)
        finally:
            for extent in grown.extents[len(self._log.extents) :]:
                self._give_back(extent)
        self._keep_spare()
        self._raise_failure()

    def _store(
        self, writes: Sequence[Write], end: int, zeros: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Store what does not count yet, below `end`, and zeros, durably everywhere."""
        ranges = [(offset, len(data)) for offset, data in writes]
        if max(map(sum, ranges)) > self._root.mark:
            self._publish(mark=end)
        for offset, length in zeros:
            self._medium.zero(offset, length)
        for offset, data in writes:
            self._medium.store(offset, data)
        self._spread([*zeros, *ranges])

    def _publish(
        self,
        log: Log | None = None,
        *,
        record: bytes | None = None,
        added: int = 0,
        mark: int = 0,
        beside: Sequence[Write] = (),
    ) -> None:
        """Move the root, durably everywhere.

        Parameters
        ----------
        log : Log, optional
            What counts from now on; it is durable everywhere.
        record : bytes, optional
            What that has more than the log before.
        added : int
            Arrays that this adds.
        mark : int
            What has to be below the high-water mark.
        beside : sequence of (int, bytes)
            Where the record goes in the log, if that becomes durable only with the root.
        """
        log = self._log if log is None else log
        slot = (self._slot + 1) % SLOT_COUNT
        root = Root(
            sequence=self._root.sequence + 1,
            log_offset=log.extents[0][0],
            log_length=log.extents[0][1],
            extents=len(log.extents),
            tail=log.tail,
            mark=max(mark, self._root.mark),
            count=self._root.count + added,
            chain=log.chain,
            record=record if beside and record is not None else b"",
        )
        writes = [*beside, (self._layout.slot_offset(slot), root.pack(self._layout.pool_id))]
        for offset, data in writes:
            self._medium.store(offset, data)
        ranges = [(offset, len(data)) for offset, data in writes]
        interrupt: BaseException | None = None
        try:
            self._spread(ranges)
        except BaseException as error:
            # It counts as soon as the local medium has it, whatever becomes of the replicas.
            interrupt = error
            for offset, length in ranges:
                self._medium.persist(offset, length)
        self._root, self._slot, self._log = root, slot, log
        if record is not None:
            self._contents.apply(record)
        if interrupt is not None:
            raise interrupt

    def _settle_record(self, record: bytes) -> None:
        """Let the log have the record that the root came with, durably wherever the root is."""
        offset, length = self._log.end - len(record), len(record)
        if self._medium.load(offset, length) != record:
            # Every copy was sent what stood here instead.
            self._medium.store(offset, record)
            self._spread([(offset, length)])
            self._raise_failure()
        elif record:
            self._medium.persist(offset, length)

    def _spread(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Make ranges durable; where a replica is lost, on all other copies, and go on."""
        try:
            self._medium.spread(ranges)
        except RpmemError as error:
            for offset, length in ranges:
                self._medium.persist(offset, length)
            self._failure = self._failure or error

    def _raise_failure(self) -> None:
        """Say that a replica was lost, now that the local copy has the change."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    # --- the extents of the log -----------------------------------------------------------

    def _is_worth_it(self) -> bool:
        return self._log.tail > self._contents.live + self._contents.live // 2

    def _write_anew(self, more: int) -> None:
        """Turn to a log that says only what counts, and has room for `more`; if that has room."""
        dump = b"".join(self._contents.dump())
        needed = Log.length_for(len(dump) + self._contents.reserve + more)
        spare, self._spare = self._spare, None
        if spare is None or spare[1] < needed:
            self._give_back(spare)
            try:
                spare = self._extent(needed, 2 * needed)
            except PoolFull:
                self._keep_spare()
                return
        before, unused = self._log, spare
        self._contents.records = 1 + len(dump) // PAGE_ALIGNMENT
        try:
            anew = Log.of(spare, dump, self._layout.pool_id)
            if dump:
                self._store([(spare[0], dump)], sum(spare))
            self._publish(anew)
        finally:
            # What the root of before says must stay until the new one is durable everywhere.
            for extent in before.extents if self._log is not before else [unused]:
                self._give_back(extent)
        self._keep_spare()

    def _keep_spare(self) -> None:
        """Keep room for a log that is written anew: it must not depend on what arrays leave."""
        needed = Log.length_for(self._contents.live + self._contents.reserve)
        if self._spare is not None and self._spare[1] >= needed:
            return
        with suppress(PoolFull):
            spare, self._spare = self._spare, self._extent(needed, 2 * needed)
            self._give_back(spare)

    def _extent(self, needed: int, wished: int) -> tuple[int, int]:
        """Take room for the log, in whole pages."""
        for length in (wished, needed):
            length = round_up(length, PAGE_ALIGNMENT)
            with suppress(PoolFull):
                return self._free.take(length, PAGE_ALIGNMENT), length
        raise PoolFull(
            f"no free stretch of {length} bytes in the pool, which its catalogue needs to grow; "
            f"the largest has {self._free.largest}",
            hint="Delete arrays, use fewer and larger ones, or create a larger pool",
        )

    def _give_back(self, extent: tuple[int, int] | None) -> None:
        if extent is not None:
            self._free.give_back(extent[0], sum(extent))
