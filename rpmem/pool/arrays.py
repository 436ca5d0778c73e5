"""Named numpy arrays in a pool: zero-copy views of the extents that the catalogue names.

A view keeps the pool's memory mapped, and the pool knows whether views of an entry exist, even
those that were sliced, transposed or cast from the original array.
"""

from __future__ import annotations

import math
import operator
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rpmem.errors import ArrayExists, CatalogueCorrupt, DtypeRefused, UsageError
from rpmem.pool.catalogue import MOST_DIMENSIONS, ORDERS, Catalogue, Entry, check_name

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from rpmem.memory.region import Region

_MOST_BYTES = 2**62


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an array, in the canonical spelling that is compared and stored.

    A sub-array dtype has been merged into the shape, as in numpy; the order of an array that is
    contiguous in both ways is ``"C"``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"shape {self.shape}, dtype {self.dtype}, order {self.order!r}"

    @classmethod
    def of(cls, shape: int | Iterable[int], dtype: DTypeLike, order: str) -> Form:
        """Check and normalize a user's arguments.

        Raises
        ------
        DtypeRefused
            The dtype contains Python objects, has no size, or makes sense only in this process.
        UsageError
            The shape or the order is not valid.
        """
        element = _as_dtype(dtype)
        dimensions = _as_shape(shape)
        if element.subdtype is not None:
            element, inner = element.subdtype
            dimensions += inner
        if not isinstance(order, str) or order not in ORDERS:
            raise UsageError(f"{order!r} is not an order", hint="Use 'C' or 'F'")
        if sum(size != 1 for size in dimensions) <= 1 or 0 in dimensions:
            order = "C"
        if len(dimensions) > MOST_DIMENSIONS:
            raise UsageError(f"{len(dimensions)} dimensions are more than numpy has")
        form = cls(dimensions, element, order)
        if form.nbytes > _MOST_BYTES:
            raise UsageError(f"an array of {form.nbytes} bytes is larger than any memory")
        return form

    @classmethod
    def from_entry(cls, entry: Entry) -> Form:
        """Read the form of a catalogue entry; `CatalogueCorrupt` if numpy cannot make it."""
        try:
            form = cls(entry.shape, read_dtype(entry.dtype), entry.order)
            agrees = form.nbytes == entry.length
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise CatalogueCorrupt(
                f"the dtype of {entry.name!r} cannot be read: {error}",
                hint="It may have been written by a newer numpy",
            ) from error
        if not agrees:
            raise CatalogueCorrupt(f"{entry.name!r} has a shape that does not match its extent")
        return form


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
    """

    def __init__(self, memory: Region, catalogue: Catalogue, *, writable: bool = True) -> None:
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

    def entries(self) -> list[Entry]:
        """Return the catalogue's entries, all as of one moment."""
        with self._lock:
            return list(self._catalogue.entries.values())

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
            entry = self._catalogue.entries.get(name)
            if entry is None:
                entry = self._catalogue.create(
                    name,
                    form.nbytes,
                    shape=form.shape,
                    order=form.order,
                    dtype=describe_dtype(form.dtype),
                )
            else:
                _check_same(name, Form.from_entry(entry), form)
            return self._view(entry, form)

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
            self._catalogue.find(name)
            if name in self._live():
                raise BufferError(
                    f"array {name!r} cannot be deleted while views of it exist; drop them first"
                )
            self._catalogue.remove(name)

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
        order: Any = form.order
        return np.ndarray(form.shape, form.dtype, buffer=anchor, order=order)


def describe_dtype(dtype: np.dtype[Any]) -> Any:
    """Return `dtype` as a JSON value that `read_dtype` understands on any machine."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": describe_dtype(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    table: Any = dtype.fields
    fields = [table[name] for name in dtype.names]
    described: dict[str, Any] = {
        "names": list(dtype.names),
        "formats": [describe_dtype(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    titles = [field[2] if len(field) > 2 else None for field in fields]
    if any(title is not None for title in titles):
        described["titles"] = titles
    return described


def read_dtype(described: Any) -> np.dtype[Any]:
    """Return the dtype that `describe_dtype` described.

    Raises
    ------
    TypeError, ValueError, KeyError
        The value does not describe a dtype, or one with Python objects: otherwise the writer of the
        medium could make this process follow arbitrary pointers.
    """
    if isinstance(described, str):
        dtype = np.dtype(described)
    elif "base" in described:
        dtype = np.dtype((read_dtype(described["base"]), tuple(described["shape"])))
    else:
        parts: Any = dict(described, formats=[read_dtype(part) for part in described["formats"]])
        dtype = np.dtype(parts)
    if dtype.hasobject:
        raise TypeError(f"{dtype} holds Python objects")
    return dtype


def _as_dtype(wanted: DTypeLike) -> np.dtype[Any]:
    try:
        dtype = np.dtype(wanted)
    except (TypeError, ValueError) as error:
        raise DtypeRefused(f"{wanted!r} is not a dtype: {error}") from None
    if dtype.hasobject:
        raise DtypeRefused(
            f"dtype {dtype} holds Python objects, which are only pointers inside this process",
            hint="Use numbers, fixed-length strings ('S16', 'U16'), datetime64 "
            "or structured dtypes of these",
        )
    if dtype.itemsize == 0:
        raise DtypeRefused(
            f"dtype {dtype} has no size", hint="Give strings a length, for example 'S16' or 'U16'"
        )
    try:
        same = read_dtype(describe_dtype(dtype)) == dtype
    except (TypeError, ValueError, KeyError):
        same = False
    if not same:
        raise DtypeRefused(
            f"dtype {dtype} is known only to this process and could not be read elsewhere",
            hint="Use a dtype that numpy itself defines, such as a view as 'u2' or 'V2'",
        )
    return dtype


def _as_shape(wanted: int | Iterable[int]) -> tuple[int, ...]:
    try:
        sizes = wanted if isinstance(wanted, Iterable) else [wanted]
        shape = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise UsageError(
            f"{wanted!r} is not a shape", hint="Use an int or a tuple of ints"
        ) from None
    if any(size < 0 for size in shape):
        raise UsageError(f"{shape} is not a shape: a size is negative")
    return shape


def _check_same(name: str, found: Form, wanted: Form) -> None:
    if found != wanted:
        raise ArrayExists(
            f"array {name!r} exists with {found}; {wanted} was asked for",
            hint="Open it as it is with pool[name], or delete it first",
        )
