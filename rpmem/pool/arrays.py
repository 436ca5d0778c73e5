"""Named numpy arrays in a pool: zero-copy views of the extents that the catalogue names.

A view keeps the pool's memory mapped, and the pool knows while any view of an entry lives: also
one that was sliced, transposed or cast from the array that was handed out.
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
    """What an array looks like, in the one spelling that is compared and stored.

    A sub-array dtype has been folded into the shape, as numpy does; the order of an array that is
    contiguous both ways is ``"C"``.
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
        """Check and normalise what a user asked for.

        Raises
        ------
        DtypeRefused
            The dtype holds Python objects, has no size, or is known to this process only.
        UsageError
            The shape or the order is none.
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
        """Read the form of a catalogue entry; `CatalogueCorrupt` when numpy cannot make it."""
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
        Whether the views handed out are.
    """

    def __init__(self, memory: Region, catalogue: Catalogue, *, writable: bool = True) -> None:
        self._memory = memory
        self._catalogue = catalogue
        self._writable = writable
        self._lock = threading.RLock()
        # name -> the byte array that every view of the entry has as its base
        self._anchors: dict[str, weakref.ref[NDArray[np.uint8]]] = {}

    def __contains__(self, name: object) -> bool:
        with self._lock:
            return isinstance(name, str) and name in self._catalogue.entries

    def names(self) -> list[str]:
        """Return the names, in the order of creation."""
        with self._lock:
            return list(self._catalogue.entries)

    def entries(self) -> list[Entry]:
        """Return the catalogue's entries, all of one moment."""
        with self._lock:
            return list(self._catalogue.entries.values())

    def entry(self, name: str) -> Entry:
        """Return the catalogue's entry; raise `ArrayNotFound` when there is none."""
        with self._lock:
            return self._catalogue.find(name)

    def open(self, name: str) -> NDArray[Any]:
        """Return a view of an array that exists; raise `ArrayNotFound` when it does not."""
        with self._lock:
            entry = self._catalogue.find(name)
            return self._view(entry, Form.from_entry(entry))

    def open_or_create(self, name: str, form: Form) -> NDArray[Any]:
        """Return a view of the array, made and zero-filled first when there is none.

        Raises
        ------
        ArrayExists
            There is one of that name with another form.
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
        """Delete an array, durably everywhere.

        Raises
        ------
        ArrayNotFound
            There is none.
        BufferError
            A view of it is alive.
        """
        with self._lock:
            self._catalogue.find(name)
            if name in self._live():
                raise BufferError(
                    f"array {name!r} cannot be deleted while views of it exist; drop them first"
                )
            self._catalogue.remove(name)

    def live(self) -> list[str]:
        """Return the names of the arrays of which views are alive."""
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
            # frombuffer holds the export of the memory; numpy makes the result the base of
            # every view derived from it, however far, because its own base is no array.
            # Read-only all the way down, or setflags() would make it writable.
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
        The value describes none, or one with Python objects in it: whoever wrote the medium
        could otherwise make this process follow pointers of theirs.
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
