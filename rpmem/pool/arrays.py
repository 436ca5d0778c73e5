"""Named numpy arrays in a pool: zero-copy views of the extents that the catalogue names.

A view keeps the pool's memory mapped, and the pool knows whether views of an entry exist, even
those that were sliced, transposed or cast from the original array.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rpmem.errors import ArrayExists
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.catalogue.entries import Entry, Wanted, check_name
from rpmem.pool.forms import Form
from rpmem.pool.tracking.ways import set_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.memory.changes.pageset import PageSet
    from rpmem.memory.region import Region


class NamedArrays:
    """The arrays of an open pool. All methods may be called from any thread.

    Parameters
    ----------
    memory : Region
        The whole pool.
    catalogue : Catalogue
        Its catalogue.
    writable : bool
        Whether its views are writable.
    touched : PageSet, optional
        Where to mark the arrays of which views were made.
    """

    def __init__(
        self,
        memory: Region,
        catalogue: Catalogue,
        *,
        writable: bool = True,
        touched: PageSet | None = None,
    ) -> None:
        self._touched = touched
        self._deleted = set_for(memory)
        self._memory = memory
        self._catalogue = catalogue
        self._writable = writable
        self._lock = threading.RLock()
        # name -> the byte array that is the base of every view of the entry
        self._anchors: dict[str, weakref.ref[NDArray[np.uint8]]] = {}

    def __contains__(self, name: object) -> bool:
        with self._lock:
            return isinstance(name, str) and name in self._catalogue.entries

    def names(self) -> list[str]:
        """Return the names, in the order of creation."""
        with self._lock:
            return list(self._catalogue.entries)

    def entry(self, name: str) -> Entry:
        """Return the catalogue's entry; raise `ArrayNotFound` if there is none."""
        with self._lock:
            return self._catalogue.find(name)

    def open(self, name: str) -> NDArray[Any]:
        """Return a view of an existing array; raise `ArrayNotFound` if it does not exist."""
        with self._lock:
            entry = self._catalogue.find(name)
            return self._view(entry, Form.from_entry(entry))

    def open_or_create(self, name: str, form: Form) -> NDArray[Any]:
        """Return a view of the array, first created and filled with zeros if it does not exist.

        Raises
        ------
        ArrayExists
            An array of that name exists with another form.
        """
        check_name(name)
        with self._lock:
            self.require({name: form})
            return self._view(self._catalogue.entries[name], form)

    def require(self, forms: Mapping[str, Form]) -> None:
        """Make those arrays that do not exist, in one change: all of them or none.

        Raises
        ------
        ArrayExists
            There is one of the names with another form; nothing was made.
        """
        with self._lock:
            names = self._catalogue.names
            wanted: list[Wanted] = []
            for name, form in forms.items():
                if name not in names:
                    wanted.append((name, form.nbytes, form.described))
                elif (found := Form.from_entry(self._catalogue.entries[name])) != form:
                    raise ArrayExists(
                        f"array {name!r} exists with {found}; {form} was asked for",
                        hint="Open it as it is with pool[name], or delete it first",
                    )
            self._catalogue.create_all(wanted)

    def rename(self, old: str, new: str) -> None:
        """Give an array another name, durably everywhere; views of it live on."""
        with self._lock:
            try:
                self._catalogue.rename(old, new)
            finally:
                # Also where a replica was lost after that.
                if old in self._anchors and old not in self._catalogue.entries:
                    self._anchors[new] = self._anchors.pop(old)

    def attrs_of(self, name: str | None) -> str:
        """Return the attributes of an array, or of the pool, as JSON."""
        with self._lock:
            return self._catalogue.attrs_of(name)

    def change_attrs(self, name: str | None, change: Callable[[str], str]) -> None:
        """Replace attributes by what `change` makes of them, all as JSON, durably everywhere."""
        with self._lock:
            self._catalogue.set_attrs(name, change(self._catalogue.attrs_of(name)))

    @property
    def free(self) -> int:
        """Bytes of the data area that nothing uses."""
        with self._lock:
            return self._catalogue.free

    def extents(self) -> tuple[list[Entry], list[tuple[int, int]], int]:
        """Return the entries, where the catalogue lies, and above what everything is zero."""
        with self._lock:
            return list(self._catalogue.entries.values()), self._catalogue.spans, self.mark

    @property
    def mark(self) -> int:
        """The offset above which every byte is zero on all copies."""
        return self._catalogue.mark

    def holds_catalogue(self, offset: int, length: int) -> bool:
        """Whether the catalogue's own bytes are in that range of the pool."""
        with self._lock:
            spans = self._catalogue.spans
        return any(offset < end and begin < offset + length for begin, end in spans)

    def tidy(self) -> None:
        """Leave the catalogue so that it is soon read."""
        with self._lock:
            self._catalogue.tidy()

    def spare_room(self, length: int, count: int) -> list[int]:
        """Return where so many pieces of free room are, of so many bytes each, or fewer."""
        with self._lock:
            return self._catalogue.spare_room(length, count)

    def remove(self, name: str) -> None:
        """Delete an array, durably on every copy.

        Raises
        ------
        ArrayNotFound
            There is no such array.
        BufferError
            A view of it exists.
        """
        with self._lock:
            entry = self._catalogue.find(name)
            anchor = self._anchors.get(name)
            if anchor is not None and anchor() is not None:
                raise BufferError(
                    f"array {name!r} cannot be deleted while views of it exist; drop them first"
                )
            self._anchors.pop(name, None)
            # What was stored there and not persisted stays, whoever has the place next.
            self._deleted.add(entry.offset, entry.length)
            self._catalogue.remove(name)

    def deleted(self) -> bytearray:
        """Return where arrays were that were deleted meanwhile, as offsets and lengths."""
        with self._lock:
            found = self._deleted.ranges()
            self._deleted.clear()
            return found

    def live(self) -> list[str]:
        """Return the names of the arrays that have views."""
        with self._lock:
            return self._live()

    @property
    def lock(self) -> threading.RLock:
        """Held during every change of the catalogue."""
        return self._lock

    def _live(self) -> list[str]:
        self._anchors = {
            name: anchor for name, anchor in self._anchors.items() if anchor() is not None
        }
        return list(self._anchors)

    def _view(self, entry: Entry, form: Form) -> NDArray[Any]:
        known = self._anchors.get(entry.name)
        anchor = None if known is None else known()
        if anchor is None:
            # frombuffer holds the export of the memory; numpy makes the result the base of every
            # view derived from it, even indirectly, because its own base is not an array. If
            # read-only, the buffer itself has to be, or setflags() would make the array writable.
            memory: Any = self._memory if self._writable else memoryview(self._memory).toreadonly()
            anchor = np.frombuffer(
                memory, dtype=np.uint8, count=max(entry.length, 1), offset=entry.offset
            )
            anchor.flags.writeable = self._writable
            self._anchors[entry.name] = weakref.ref(anchor)
            if self._touched is not None:
                self._touched.add(entry.offset, entry.length)
        order: Any = form.order
        return np.ndarray(form.shape, form.dtype, buffer=anchor, order=order)


class Views(Mapping[str, "NDArray[Any]"]):
    """Arrays of a pool by name; each view is made when it is asked for.

    Parameters
    ----------
    arrays : NamedArrays
        All arrays of the pool.
    names : iterable of str
        Which of them, in this order.
    """

    def __init__(self, arrays: NamedArrays, names: Iterable[str]) -> None:
        self._arrays = arrays
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        return self._arrays.open(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<{len(self)} arrays of a pool>"
