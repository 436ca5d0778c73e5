"""Copies that are known and away, and what each of them has missed: a bit for each page.

A map is exact about what was made durable: each page that is not in it has the same bytes on the
absent copy, durably, as on the others, but for what was stored and never persisted. It goes by the
record with which its copy went away. Where a copy comes back with another one, or where anything
else is in doubt, nobody knows what it has missed, and it is compared.

There is no I/O here.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rpmem.epochs.record import MOST_PARTED, CopyRecord, Mark, Stamp
from rpmem.memory.changes.pageset import PageSet

if TYPE_CHECKING:
    from rpmem.epochs.record import Epoch

#: Maps that are kept, at most: as many as copies that an epoch remembers.
MOST_MAPS: Final = MOST_PARTED

#: Offsets and lengths.
Ranges = Iterable[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Absence:
    """What one copy that is away has missed.

    Parameters
    ----------
    pages : PageSet
        The map.
    last : Stamp
        The epoch that its record has to name: the last one that it had in common with the others.
    clean : bool
        Its record has to say that it was closed, too. Otherwise it may have been lost before the
        end of that epoch, and have missed what no map speaks of.
    boot : bytes or None
        Which boot of its machine acknowledged its last bytes; None: that is not known.
    """

    pages: PageSet
    last: Stamp
    clean: bool = False
    boot: bytes | None = None

    def is_of(self, record: CopyRecord, *, keeps: bool, boot: bytes | None) -> bool:
        """Whether a copy that comes back with this record has missed these pages, and no others.

        Parameters
        ----------
        record : CopyRecord
            As it is found there, before it is replaced.
        keeps : bool
            What the copy has acknowledged survives a power failure.
        boot : bytes or None
            Which boot of its machine this is.
        """
        if record.epoch.stamp != self.last or not record.complete:
            return False
        if record.prepared is not None:
            return False  # somebody has been there since
        if self.clean and record.mark is not Mark.CLEAN:
            return False
        return keeps or (boot is not None and boot == self.boot)


class Absent:
    """The copies that are known and away.

    Parameters
    ----------
    size : int
        Bytes of the region whose pages the maps speak of.

    Attributes
    ----------
    boots : mapping
        By uuid: in which boot of its machine a copy was closed that may not outlive that.

    Notes
    -----
    `missed` may be called by any thread at any time; everything else while no call is in progress.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._known: dict[bytes, Absence] = {}
        self.boots: Mapping[bytes, bytes] = {}

    def __contains__(self, copy: bytes) -> bool:
        return copy in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[bytes, Absence]]:
        """Return uuid and absence of each copy."""
        return iter(self._known.items())

    @property
    def maps(self) -> list[PageSet]:
        """What has to be marked by every call from now on."""
        return [each.pages for each in self._known.values()]

    def empty(self) -> PageSet:
        """Return a map of nothing."""
        return PageSet(self._size)

    def resume(self, absences: Mapping[bytes, Absence], boots: Mapping[bytes, bytes]) -> None:
        """Go on with what was kept while the pool was closed."""
        for copy, each in absences.items():
            self.part(copy, each)
        self.boots = boots

    # --- copies that go -------------------------------------------------------------------

    def part(self, copy: bytes, absence: Absence) -> None:
        """Take note of a copy that goes away."""
        with self._lock:
            self._known.pop(copy, None)
            self._known[copy] = absence
            if len(self._known) > MOST_MAPS:
                del self._known[next(iter(self._known))]

    def part_closed(self, record: CopyRecord, staying: Collection[bytes]) -> None:
        """Take note of the members of an epoch that do not come along into the next one.

        Parameters
        ----------
        record : CopyRecord
            Of the local copy, as it was found, before anything was stored.
        staying : collection of bytes
            The uuids of the members of the next epoch.

        Notes
        -----
        Those of which `boots` says in which boot they were closed may not outlive their machine.
        """
        if record.mark is not Mark.CLEAN:
            return
        for copy in record.epoch.members:
            if copy not in staying and copy not in self._known:
                boot = self.boots.get(copy)
                self.part(copy, Absence(self.empty(), record.epoch.stamp, clean=True, boot=boot))

    def keep_to(self, epoch: Epoch) -> None:
        """Forget the copies that an epoch does not remember as parted."""
        parted = {each.copy for each in epoch.common}
        with self._lock:
            for copy in [each for each in self._known if each not in parted]:
                del self._known[copy]

    # --- what they miss -------------------------------------------------------------------

    def missed(self, ranges: Ranges) -> None:
        """Mark what was made durable otherwise than by a call."""
        with self._lock:
            for each in self._known.values():
                for offset, length in ranges:
                    each.pages.mark(offset, length)

    # --- copies that come back ------------------------------------------------------------

    def find(self, record: CopyRecord, *, keeps: bool, boot: bytes | None) -> PageSet | None:
        """Return what a copy that comes back has missed; None: nobody knows."""
        known = self._known.get(record.copy)
        if known is None or not known.is_of(record, keeps=keeps, boot=boot):
            return None
        return known.pages

    def is_gone(self, copy: bytes, *, keeps: bool, boot: bytes | None) -> bool:
        """Whether a copy that was closed with ours has lost what its machine had in memory."""
        before = self.boots.get(copy)
        return not (keeps or before is None or boot is None or before == boot)
