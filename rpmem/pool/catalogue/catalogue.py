"""The catalogue of named arrays: crash-consistent on its medium, without numpy.

A change appends one record to the log (`rpmem.pool.catalogue.log`) and moves the root
(`rpmem.pool.catalogue.root`) behind it, which brings a copy of that record with it, or is stored
only when the record is durable everywhere. A crash at any moment therefore leaves the old catalogue
or the new one on every copy. What a change costs does not depend on how many arrays there are.

Now and then, when most of the log is about what is gone, it is written anew into other extents;
the root is what turns from one to the other, and the extents before are free from then on.

A new array's extent is zeroed, and the zeros made durable, before the array is published. Above
the high-water mark all bytes are zero on every copy as it is, and are neither stored nor sent: the
mark is moved, durably everywhere, before anything may be stored above it.
"""

from __future__ import annotations

from collections.abc import KeysView, Mapping, Sequence
from typing import Any

from rpmem.errors import ArrayExists
from rpmem.pool.catalogue import log as logs
from rpmem.pool.catalogue import records
from rpmem.pool.catalogue.entries import (
    Entries,
    Entry,
    Wanted,
    check_name,
    check_names,
    not_found,
)
from rpmem.pool.catalogue.extents import PAGE_ALIGNMENT
from rpmem.pool.catalogue.journal import Journal
from rpmem.pool.catalogue.log import Log
from rpmem.pool.catalogue.medium import Medium, Source
from rpmem.pool.catalogue.records import DROP_OVERHEAD, Contents
from rpmem.pool.catalogue.root import Found, Root, read_slots
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, SLOT_COUNT, Layout

#: Room for the first log and for the one that it is written anew into.
_FIRST_MARK = 2 * PAGE_ALIGNMENT
#: Records that are read in no time.
_MANY_RECORDS = 2000


class Catalogue(Journal):
    """The entries of a pool, in memory and on its medium.

    Made by `format` and `read`. Changes are not thread-safe: the caller holds a lock over them.
    """

    @classmethod
    def format(cls, medium: Medium, layout: Layout, *, zeroed: bool = False) -> Catalogue:
        """Write an empty catalogue and then the layout, durably, over whatever was there.

        A crash before the end leaves no layout, hence no pool. The state word is the caller's.

        Parameters
        ----------
        medium : Medium
            The pool.
        layout : Layout
            What it is to have.
        zeroed : bool
            Every byte of the data area is zero, on every copy.
        """
        first = (layout.data_start, PAGE_ALIGNMENT)
        mark = layout.data_start + _FIRST_MARK if zeroed else layout.pool_size
        content = Log.of(first, b"", layout.pool_id), Contents()
        nothing = Root(0, *first, 1, 0, mark, 0, content[0].chain)
        catalogue = cls(medium, layout, Found(nothing, SLOT_COUNT - 1, whole=True), content)
        catalogue._clear([(LAYOUT_OFFSET, LAYOUT_SIZE)])
        catalogue._clear([(layout.slot_offset(0), SLOT_COUNT * layout.slot_size)])
        catalogue._publish()
        catalogue._raise_failure()
        medium.store(LAYOUT_OFFSET, layout.pack())
        medium.spread([(LAYOUT_OFFSET, LAYOUT_SIZE)])
        return catalogue

    @classmethod
    def read(
        cls, source: Source, layout: Layout, *, clean: bool = False, where: str | None = None
    ) -> Catalogue:
        """Read the catalogue and change nothing.

        Parameters
        ----------
        source : Source
            The pool.
        layout : Layout
            Its superblock.
        clean : bool
            The copy was closed: both roots have to be what they were then.
        where : str, optional
            What errors name.

        Raises
        ------
        CatalogueCorrupt
            There is no valid root, or the copy is damaged.
        """
        found = read_slots(source, layout, clean=clean, where=where)
        content = logs.read(source, layout, found.root, clean=clean, where=where)
        medium: Any = source  # until `settle` gives another
        try:
            return cls(medium, layout, found, content)
        except ValueError as error:
            raise logs.senseless(error, where) from error

    def settle(self, medium: Medium, *, keeps_zeros: bool = True) -> None:
        """Rely upon what was read, to go on with it through another medium of the same pool.

        First the root that was found is made durable locally: a writer that was killed between its
        store and its flush leaves a valid one that a power cut could still take away. Then the log
        gets the record that the root has a copy of: the next root does not have it. Where the other
        slot is torn, a root is published over it at once; and as it cannot be known what that one
        said, nothing above the mark is taken for zero from then on.

        Parameters
        ----------
        medium : Medium
            The pool.
        keeps_zeros : bool
            Nobody but pools writes to the local copy, so what is above the mark is zero still.
        """
        self._medium = medium
        self._distrusts_zeros = not keeps_zeros
        medium.persist(LAYOUT_OFFSET, LAYOUT_SIZE)
        medium.persist(self._layout.slot_offset(self._slot), self._root.size)
        self._settle_record(self._root.record)
        if not self._whole:
            self._publish(mark=self._layout.pool_size)
            self._whole = True
            self._raise_failure()

    # --- what there is --------------------------------------------------------------------

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The entries by name, in the order of their creation; a renamed one comes last."""
        return Entries(self._contents.raw)

    @property
    def names(self) -> KeysView[str]:
        """The names of the entries, in their order."""
        return self._contents.raw.keys()

    @property
    def free(self) -> int:
        """Bytes of the data area that nothing uses."""
        return self._free.size

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Begin and end of the extents that the catalogue itself lies in."""
        return self._log.spans

    def find(self, name: str) -> Entry:
        """Return the entry of that name; raise `ArrayNotFound` when there is none."""
        self._require(name)
        return self.entries[name]

    def attrs_of(self, name: str | None) -> str:
        """Return the attributes of an array, or of the pool, as JSON."""
        if name is not None:
            self._require(name)
        return self._contents.attrs.get(name or "", "{}")

    # --- changes --------------------------------------------------------------------------

    def create_all(self, wanted: Sequence[Wanted]) -> None:
        """Allocate many zero-filled extents and publish them in one change, all or none.

        Raises
        ------
        UsageError
            A name cannot be one.
        ArrayExists
            There is one of that name.
        PoolFull
            No gap is large enough, for an array or for the catalogue.
        ReplicaLost
            A replica broke; locally the entries exist.
        """
        names = [name for name, _, _ in wanted]
        check_names(names)
        if not self._contents.raw.keys().isdisjoint(names):
            taken = next(name for name in names if name in self._contents.raw)
            raise ArrayExists(f"an array named {taken!r} exists")
        if not wanted:
            return
        # What is zero already is taken first: reused room has to be zeroed, which is one page more
        # to be made durable even for the shortest array.
        lengths = [length for _, length, _ in wanted]
        offsets, spans = self._free.take_each(lengths, mark=self._root.mark)
        try:
            self._append(
                records.put(wanted, offsets),
                zeros=self._doubtful(spans),
                added=len(wanted),
                more=len("".join(names).encode()) + DROP_OVERHEAD * len(names),
                mark=max(spans)[1],
            )
        except BaseException:
            # Unless they were published, and only then did a replica fail.
            if names[0] not in self._contents.raw:
                for span in spans:
                    self._free.give_back(*span)
            raise

    def remove(self, name: str) -> None:
        """Take the entry of that name out, durably here and on every replica.

        Raises
        ------
        ArrayNotFound
            There is none.
        ReplicaLost
            A replica broke; locally the entry is gone.
        """
        entry = self.find(name)
        try:
            self._append(records.drop([name]), added=-1)
        finally:
            if name not in self._contents.raw:
                self._free.give_back(entry.offset, entry.end)

    def rename(self, old: str, new: str) -> None:
        """Give an array another name, durably here and on every replica.

        Raises
        ------
        ArrayNotFound, ArrayExists, UsageError
            There is none of the old name, or one of the new, or that cannot be one.
        PoolFull, ReplicaLost
            As for `create_all`.
        """
        self._require(old)
        check_name(new)
        if new in self._contents.raw:
            raise ArrayExists(f"an array named {new!r} exists")
        self._append(records.rename(old, new), more=len(new.encode()))

    def set_attrs(self, name: str | None, text: str) -> None:
        """Replace the attributes of an array, or of the pool, by those that `text` is the JSON of.

        Raises
        ------
        ArrayNotFound
            There is no such array.
        PoolFull, ReplicaLost
            As for `create_all`.
        """
        if name is not None:
            self._require(name)
        self._append(records.attrs(name or "", text))

    def tidy(self) -> None:
        """Write a log of very many records anew: one of a few is read much faster."""
        if self._contents.records > max(_MANY_RECORDS, len(self._contents.raw) // 8):
            self._write_anew(0)
            self._raise_failure()

    def _require(self, name: str) -> None:
        if not isinstance(name, str) or name not in self._contents.raw:
            raise not_found(name, self._contents.raw)
