"""What an array looks like: shape, dtype and order, checked and in one spelling."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rpmem.errors import CatalogueCorrupt, DtypeRefused, UsageError
from rpmem.pool.catalogue.entries import MOST_DIMENSIONS, ORDERS, Entry, describe

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_MOST_BYTES = 2**62


@dataclass(frozen=True)
class Form:
    """The form of an array, in the canonical spelling that is compared and stored.

    A sub-array dtype has been merged into the shape, as in numpy; the order of an array that is
    contiguous in both ways is ``"C"``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @functools.cached_property
    def described(self) -> str:
        """The form as the catalogue stores it."""
        return describe(self.shape, self.order, describe_dtype(self.dtype))

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


def forms_of(wanted: Mapping[str, tuple[Any, ...]]) -> dict[str, Form]:
    """Return a form by name, from ``(shape, dtype)`` or ``(shape, dtype, order)`` by name.

    What is asked for alike is checked once.
    """
    known: dict[Any, Form] = {}
    forms = {}
    for name, asked in wanted.items():
        try:
            form = known.get(asked)
        except TypeError:
            form = None  # a list, somewhere in it
        if form is None:
            if not isinstance(asked, tuple) or len(asked) not in (2, 3):
                raise UsageError(
                    f"{name!r} has {asked!r}, which is neither (shape, dtype) nor "
                    "(shape, dtype, order)"
                )
            shape, dtype, order = asked if len(asked) == 3 else (*asked, "C")
            form = Form.of(shape, dtype, order)
            with suppress(TypeError):
                known[asked] = form
        forms[name] = form
    return forms


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
