"""The records of the log, and what they add up to.

A record has 16 bytes of header (kind, number of names, bytes of the body) and a body, and is
padded with zeros to a multiple of 8. Numbers are little-endian, texts are UTF-8; a name is
printable, so a line feed ends it.
"""

from __future__ import annotations

import enum
import json
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from rpmem.errors import UsageError
from rpmem.pool.catalogue.entries import LONGEST_NAME, SURELY_SHORT, Raw, Wanted, is_name
from rpmem.pool.catalogue.extents import SMALL_ALIGNMENT

HEADER = struct.Struct("<IIQ")
_ONE = struct.Struct("<QQQ")
_WORD = 8
#: Bytes of the attributes of one array, as JSON, at most.
MOST_ATTRS = 1 << 16
#: Entries in one record of a log that is written anew.
_ENTRIES_PER_RECORD = 4096
#: What removing an array takes beside its name.
DROP_OVERHEAD = HEADER.size + _WORD
# What an array takes in a record of its own, beside name and form, at most.
_PUT_OVERHEAD = HEADER.size + 4 * _WORD
_ATTRS_OVERHEAD = HEADER.size + _WORD + 1


class Kind(enum.IntEnum):
    """What a record says."""

    PUT = 1
    """New arrays: all offsets, all lengths, bytes of the names, the names, the forms."""
    DROP = 2
    """Arrays that are gone: their names."""
    RENAME = 3
    """Another name for an array: the old one, the new one."""
    ATTRS = 4
    """Attributes in place of those before: the array's name, or nothing for the pool's; JSON."""


def put(wanted: Sequence[Wanted], offsets: Sequence[int]) -> bytes:
    """Return the record of new arrays in the extents at `offsets`."""
    lengths = [length for _, length, _ in wanted]
    names = "\n".join([name for name, _, _ in wanted]).encode()
    forms = "\n".join([form for _, _, form in wanted]).encode()
    numbers = array("Q", [*offsets, *lengths, len(names)])
    return _record(Kind.PUT, len(wanted), b"".join((numbers.tobytes(), names, forms)))


def drop(names: Sequence[str]) -> bytes:
    """Return the record of arrays that are gone."""
    return _record(Kind.DROP, len(names), "\n".join(names).encode())


def rename(old: str, new: str) -> bytes:
    """Return the record of another name for an array."""
    return _record(Kind.RENAME, 1, f"{old}\n{new}".encode())


def attrs(name: str, text: str) -> bytes:
    """Return the record of attributes, as JSON; those of the pool without a name."""
    return _record(Kind.ATTRS, 1, f"{name}\n{text}".encode())


def attrs_text(values: dict[str, Any]) -> str:
    """Return attributes as JSON in one line; `UsageError` when they are none or too many."""
    try:
        text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"attributes have to be JSON: {error}",
            hint="Use numbers, strings, booleans, None, lists and dicts with strings as keys",
        ) from None
    if len(text) > MOST_ATTRS:
        raise UsageError(
            f"the attributes take {len(text)} bytes as JSON; {MOST_ATTRS} is the most",
            hint="Keep what is large in an array",
        )
    return text


def _record(kind: Kind, count: int, body: bytes) -> bytes:
    padding = -len(body) % _WORD
    return HEADER.pack(kind, count, len(body)) + body + bytes(padding)


def split(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Return kind, count and body of each record; ValueError where something else stands."""
    at, end = 0, len(content)
    while at < end:
        kind, count, length = HEADER.unpack_from(content, at)
        begin = at + HEADER.size
        at = begin + length + (-length % _WORD)
        if at > end:
            raise ValueError("a record is longer than the log")
        yield kind, count, content[begin : begin + length]


class Contents:
    """What the records say together.

    Attributes
    ----------
    raw : dict
        Raw entries by name, in the order in which they came.
    attrs : dict
        Attributes as JSON by name; those of the pool without a name.
    records : int
        How many records said so, about.
    """

    def __init__(self) -> None:
        self.raw: dict[str, Raw] = {}
        self.attrs: dict[str, str] = {}
        self.records = 0
        self._name_bytes = 0
        self._live = 0

    @property
    def reserve(self) -> int:
        """Bytes that a log needs to take out every array there is, one by one."""
        return self._name_bytes + DROP_OVERHEAD * len(self.raw)

    @property
    def live(self) -> int:
        """Bytes of a log that says only this, each array in a record of its own: at most."""
        return self._live

    def apply(self, record: bytes) -> None:
        """Let a record of this process count."""
        ((kind, count, body),) = split(record)
        self.take(kind, count, body)

    def take(self, kind: int, count: int, body: bytes) -> None:
        """Let a record count; ValueError, KeyError, ... when it makes no sense."""
        self.records += 1
        if kind == Kind.PUT:
            if count == 1:
                self._put_one(body)
            else:
                self._put(count, body)
        elif kind == Kind.DROP:
            names = body.decode().split("\n")
            for name in names:
                self._count(name, self.raw.pop(name), -1)
                self._set_attrs(name, "{}")
        elif kind == Kind.RENAME:
            old, new = body.decode().split("\n")
            self._rename(old, new)
        elif kind == Kind.ATTRS:
            name, text = body.decode().split("\n")
            if name and name not in self.raw:
                raise ValueError(f"attributes of {name!r}, which does not exist")
            self._set_attrs(name, text)
        else:
            raise ValueError(f"a record is of kind {kind}")

    def extents(self) -> list[tuple[int, int]]:
        """Return begin and end of the room that each array takes up."""
        mask = -SMALL_ALIGNMENT
        return [
            (offset, offset + ((length + SMALL_ALIGNMENT - 1) & mask or SMALL_ALIGNMENT))
            for offset, length, _ in self.raw.values()
        ]

    def dump(self) -> Iterator[bytes]:
        """Return records that say all this."""
        names = iter(self.raw.items())
        while batch := list(islice(names, _ENTRIES_PER_RECORD)):
            wanted = [(name, length, form) for name, (_, length, form) in batch]
            yield put(wanted, [offset for _, (offset, _, _) in batch])
        for name, text in self.attrs.items():
            yield attrs(name, text)

    def _put_one(self, body: bytes) -> None:
        # The same as `_put`, several times faster.
        offset, length, size = _ONE.unpack_from(body)
        split_at = _ONE.size + size
        name = body[_ONE.size : split_at].decode()
        if name in self.raw or not name.isprintable() or not 0 < size <= LONGEST_NAME:
            raise ValueError(f"{name!r} occurs twice, or cannot name an array")
        self.raw[name] = (offset, length, body[split_at:].decode())
        self._name_bytes += size
        self._live += _PUT_OVERHEAD + len(body) - _ONE.size

    def _put(self, count: int, body: bytes) -> None:
        numbers = array("Q")
        numbers.frombytes(body[: (2 * count + 1) * numbers.itemsize])
        at = len(numbers) * numbers.itemsize
        split_at = at + numbers[-1]
        text = body[at:split_at].decode()
        names = text.split("\n")
        forms = body[split_at:].decode().split("\n")
        made = dict(
            zip(
                names,
                zip(numbers[:count], numbers[count:-1], forms, strict=True),
                strict=True,
            )
        )
        if len(made) != count or not self.raw.keys().isdisjoint(made):
            raise ValueError("a name occurs twice")
        # Once for all of them, and one by one only to find the wrong one, or what is long.
        if not "".join(names).isprintable() or "" in made or max(map(len, names)) > SURELY_SHORT:
            for name in names:
                if not is_name(name):
                    raise ValueError(f"{name!r} cannot name an array")
        self.raw.update(made)
        self._name_bytes += numbers[-1] - (count - 1)
        self._live += _PUT_OVERHEAD * count + len(body) - at - 2 * (count - 1)

    def _rename(self, old: str, new: str) -> None:
        if new in self.raw or not is_name(new):
            raise ValueError(f"{new!r} cannot be the name of {old!r}")
        raw = self.raw.pop(old)
        self._count(old, raw, -1)
        self.raw[new] = raw
        self._count(new, raw, 1)
        text = self.attrs.get(old, "{}")
        self._set_attrs(old, "{}")
        self._set_attrs(new, text)

    def _set_attrs(self, name: str, text: str) -> None:
        before = self.attrs.pop(name, None)
        if before is not None:
            self._live -= _ATTRS_OVERHEAD + len(name.encode()) + len(before)
        if text != "{}":
            self.attrs[name] = text
            self._live += _ATTRS_OVERHEAD + len(name.encode()) + len(text)

    def _count(self, name: str, raw: Raw, sign: int) -> None:
        length = len(name.encode())
        self._name_bytes += sign * length
        self._live += sign * (_PUT_OVERHEAD + length + len(raw[2]))
