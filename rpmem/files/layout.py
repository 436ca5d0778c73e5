"""The contents of a pool set, and where in its parts the bytes of the pool are.

The rules are those of PMDK 1.12, the terms those of poolset(5). `rpmem.files.poolset` reads the
file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from rpmem.base.printable import printable
from rpmem.base.sizes import format_size
from rpmem.base.values import Record
from rpmem.errors import PoolSetMalformed

#: First line of every pool set file.
SIGNATURE = "PMEMPOOLSET"
#: Options that a pool set may have.
OPTIONS = frozenset({"SINGLEHDR", "NOHDRS"})
#: Parts are mapped in whole pages of this size; a header takes one.
PAGE = 4096
#: Smallest part that PMDK accepts.
MIN_PART = 2 * 1024 * 1024


class Part(Record):
    """One part: a file, a device DAX, or a directory in which parts are made.

    Parameters
    ----------
    size : int or None
        Bytes; None for ``AUTO``, the size of a device DAX.
    path : str
        Absolute path.
    line : int
        Line of the pool set file; 0 if there is no file.
    """

    _aside: ClassVar[frozenset[str]] = frozenset({"line"})
    size: int | None
    path: str
    line: int = 0


class LocalReplica(Record):
    """A further copy of the pool on this machine."""

    _aside: ClassVar[frozenset[str]] = frozenset({"line"})
    parts: Sequence[Part]
    line: int = 0

    def _check(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))


class RemoteReplica(Record):
    """A further copy of the pool in the pool set `pool_set` of the machine `target`."""

    _aside: ClassVar[frozenset[str]] = frozenset({"line"})
    target: str
    pool_set: str
    line: int = 0


class Segment(Record):
    """The place of a piece of the pool in a part.

    Parameters
    ----------
    part : Part
        The part.
    file_offset, length : int
        Bytes of the part, both multiples of the page size.
    pool_offset : int
        Their place in the pool.
    """

    part: Part
    file_offset: int
    length: int
    pool_offset: int


class PoolSet(Record):
    """A pool set: its parts, its replicas and its options.

    Parameters
    ----------
    parts : sequence of Part
        The first copy of the pool, which every pool set has.
    replicas : sequence of LocalReplica and RemoteReplica
        The further copies.
    options : frozenset of str
        ``SINGLEHDR``, ``NOHDRS`` or nothing.
    source : str
        Where the pool set was read from, for messages.
    """

    _aside: ClassVar[frozenset[str]] = frozenset({"source"})
    parts: Sequence[Part]
    replicas: Sequence[LocalReplica | RemoteReplica] = ()
    options: frozenset[str] = frozenset()
    source: str = "pool set"

    def _check(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "replicas", tuple(self.replicas))
        object.__setattr__(self, "options", frozenset(self.options))
        check_options(self.options, self.source)
        if not self.parts:
            raise PoolSetMalformed("the pool set has no parts", where=self.source)

    @property
    def local_copies(self) -> tuple[tuple[Part, ...], ...]:
        """The parts of every copy on this machine, the first copy first."""
        further = (tuple(each.parts) for each in self.replicas if isinstance(each, LocalReplica))
        return (tuple(self.parts), *further)

    @property
    def pool_size(self) -> int:
        """Bytes of the pool: the size of its smallest copy on this machine.

        The size of a copy is the sum of its parts, each without its last partial page, minus a page
        for every header except the first. Raises `PoolSetMalformed` while a size is still ``AUTO``.
        """
        return min(self.copy_size(parts) for parts in self.local_copies)

    def copy_size(self, parts: Sequence[Part]) -> int:
        """Return how many bytes of a pool the parts of one copy hold, see `pool_size`."""
        return sum(segment.length for segment in self.segments(parts))

    def segments(self, parts: Sequence[Part] | None = None) -> list[Segment]:
        """Say which bytes of which part make up the pool.

        The first part counts from its beginning, header included. Every further part is without the
        page of its header, if it has one.

        Parameters
        ----------
        parts : sequence of Part, optional
            Those of a local replica; default: those of the first copy.

        Returns
        -------
        list of Segment
            One per part, in the order of the pool.

        Raises
        ------
        PoolSetMalformed
            A size is still ``AUTO``, or a part is too small for its header's page.
        """
        skipped = 0 if self.options else PAGE
        segments: list[Segment] = []
        pool_offset = 0
        for part in self.parts if parts is None else parts:
            file_offset = skipped if segments else 0
            if part.size is None:
                raise PoolSetMalformed(
                    f"the size of {self.called(part)} is AUTO and has not been read from the "
                    "device",
                    where=self.where(part),
                )
            length = part.size // PAGE * PAGE - file_offset
            if length <= 0:
                raise PoolSetMalformed(
                    f"{self.called(part)} has no room for data after its header",
                    where=self.where(part),
                    hint=f"Give it at least {format_size(MIN_PART)}",
                )
            segments.append(Segment(part, file_offset, length, pool_offset))
            pool_offset += length
        return segments

    def check_part_sizes(self) -> None:
        """Raise `PoolSetMalformed` if a part with a known size is smaller than `MIN_PART`."""
        for part in (part for parts in self.local_copies for part in parts):
            if part.size is not None and part.size < MIN_PART:
                raise PoolSetMalformed(
                    f"{self.called(part)} has {part.size} bytes, but a part needs {MIN_PART}",
                    where=self.where(part),
                    hint=f"Give it at least {format_size(MIN_PART)}",
                )

    def check_for_target(self) -> None:
        """Raise `PoolSetMalformed` unless this can be a pool set of a target.

        A target's pool set is one copy; only the pool set of the initiator has replicas.
        """
        for replica in self.replicas:
            raise PoolSetMalformed(
                "the pool set of a target cannot have replicas",
                where=self.where(replica),
                hint="Remove this line and what belongs to it; replicas are listed in the pool set "
                "of the initiator",
            )
        self.check_part_sizes()

    def where(self, item: Part | LocalReplica | RemoteReplica) -> str:
        """Return ``FILE:LINE`` of something in the pool set."""
        return f"{self.source}:{item.line}" if item.line else self.source

    def called(self, part: Part) -> str:
        """Return how to refer to a part in a message about `where`."""
        return part.path if part.line else "it"

    def format(self) -> str:
        """Return the text of a pool set file.

        Returns
        -------
        str
            For which ``parse(text) == self``; paths that are not UTF-8 keep their surrogates.

        Raises
        ------
        PoolSetMalformed
            A path cannot be written in a pool set file.
        """
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield SIGNATURE
        if self.options:
            yield "OPTION " + " ".join(sorted(self.options))
        yield from self._part_lines(self.parts)
        for replica in self.replicas:
            if isinstance(replica, RemoteReplica):
                yield f"REPLICA {replica.target} {replica.pool_set}"
            else:
                yield "REPLICA"
                yield from self._part_lines(replica.parts)

    def _part_lines(self, parts: Sequence[Part]) -> Iterator[str]:
        for part in parts:
            if not part.path.startswith("/") or re.search(r"[ \t\r\n#\0]", part.path):
                raise PoolSetMalformed(
                    f"a pool set file cannot name '{printable(part.path, 200)}'",
                    where=self.source,
                    hint="Paths of parts are absolute, and have no blanks and no '#'",
                )
            yield f"{'AUTO' if part.size is None else format_size(part.size)} {part.path}"


def single(path: str | os.PathLike[str], size: int | None) -> PoolSet:
    """Return a pool set that stands for a pool in one plain file.

    Parameters
    ----------
    path : str or os.PathLike
        The file; it need not exist.
    size : int or None
        Its size in bytes; None for that of a device DAX.

    Returns
    -------
    PoolSet
        With one part.
    """
    absolute = os.path.abspath(os.fspath(path))
    return PoolSet([Part(size, absolute)], source=absolute)


def check_options(options: frozenset[str] | set[str], where: str) -> None:
    """Raise `PoolSetMalformed` unless a pool set can combine these options."""
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise PoolSetMalformed(
            f"'{printable(unknown[0], 40)}' is not an option of pool sets",
            where=where,
            hint=f"Options are {' or '.join(sorted(OPTIONS))}",
        )
    if len(options) > 1:
        raise PoolSetMalformed(
            "SINGLEHDR and NOHDRS exclude each other", where=where, hint="Keep one of them"
        )
