"""What the catalogue knows of one array, and what a name can be."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rpmem.errors import ArrayNotFound, CatalogueCorrupt, UsageError
from rpmem.pool.catalogue.extents import room

LONGEST_NAME = 255
#: Characters that are certainly no more bytes than that.
SURELY_SHORT = 63
MOST_DIMENSIONS = 64
ORDERS = ("C", "F")
_NAMES_IN_HINT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One named array.

    Parameters
    ----------
    name : str
        Its name.
    offset, length : int
        Its extent, in bytes from the beginning of the pool.
    shape : tuple of int
        Its shape.
    order : {"C", "F"}
        Its memory layout.
    dtype : JSON value
        Its dtype as `rpmem.pool.forms` describes it; opaque here.
    """

    name: str
    offset: int
    length: int
    shape: tuple[int, ...]
    order: str
    dtype: Any

    @property
    def end(self) -> int:
        """Offset of the first byte after the room taken, rounded up to `SMALL_ALIGNMENT`."""
        return self.offset + room(self.length)


#: An array to be made: its name, its bytes, and what `describe` returned.
Wanted = tuple[str, int, str]
#: An entry as the log has it: offset, length, and what `describe` returned.
Raw = tuple[int, int, str]


def describe(shape: tuple[int, ...], order: str, dtype: Any) -> str:
    """Return shape, order and dtype as one line of JSON."""
    return json.dumps([shape, order, dtype], separators=(",", ":"))


def parse(name: str, raw: Raw) -> Entry:
    """Return the entry that the log has; `CatalogueCorrupt` when it makes no sense."""
    offset, length, form = raw
    try:
        sizes, order, dtype = json.loads(form)
        shape = tuple(sizes)
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"the shape is {shape}")
        if order not in ORDERS or len(shape) > MOST_DIMENSIONS:
            raise ValueError("it has an unknown memory layout")
    except (ValueError, TypeError, RecursionError) as error:
        raise CatalogueCorrupt(
            f"the catalogue has a good checksum, but its entry of {name!r} makes no sense: {error}",
            hint="It was written by another version of rpmem, or by something else",
        ) from error
    return Entry(name, offset, length, shape, order, dtype)


class Entries(Mapping[str, Entry]):
    """Entries by name, each parsed when it is looked at.

    Parameters
    ----------
    raw : dict
        Raw entries by name.
    """

    def __init__(self, raw: Mapping[str, Raw]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> Entry:
        return parse(name, self._raw[name])

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)


def is_name(name: str) -> bool:
    """Whether `name` can name an array."""
    if not name.isprintable() or not name:
        return False
    return len(name.encode(errors="replace")) <= LONGEST_NAME


def check_names(names: Sequence[str]) -> None:
    """Raise `UsageError` unless each of them can name an array."""
    try:
        text = "".join(names)
    except TypeError:
        text = "\n"  # one of them is no str
    # Once for all of them, and one by one only to find the wrong one, or what is long.
    if not text.isprintable() or not all(names) or max(map(len, names), default=0) > SURELY_SHORT:
        for name in names:
            check_name(name)


def check_name(name: str) -> None:
    """Raise `UsageError` unless `name` can name an array."""
    if not isinstance(name, str):
        raise UsageError(f"the name of an array is a str, not {type(name).__name__}")
    if not is_name(name):
        raise UsageError(
            f"{name!r} cannot name an array",
            hint=f"A name has 1 to {LONGEST_NAME} bytes of UTF-8, all of them printable",
        )


def not_found(name: object, names: Iterable[str]) -> ArrayNotFound:
    """Return the error that says which names there are."""
    known = heapq.nsmallest(_NAMES_IN_HINT + 1, names)
    listed = ", ".join(map(repr, known[:_NAMES_IN_HINT]))
    if len(known) > _NAMES_IN_HINT:
        listed += ", ..."
    return ArrayNotFound(
        f"the pool has no array named {name!r}",
        hint=f"It has {listed}" if known else "It has no arrays yet",
    )
