"""A pool as files: the parts of a pool set, created, opened, mapped and described.

Both sides use this: the initiator for its own pools, rpmemd for those of initiators. The
layout is PMDK's: part 0 from its first byte, every further part without its header, all of them
one contiguous range of memory. The mapping code is imported when something is mapped: reading
headers does not need it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, ClassVar, Self

from rpmem import errors
from rpmem.base.handles import Closing
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.base.values import replace
from rpmem.files import drafts, header, poolset, redo
from rpmem.files.directories import present
from rpmem.files.drafts import PRIVATE
from rpmem.files.header import Header, PoolAttributes
from rpmem.files.layout import Segment
from rpmem.files.locks import undisturbed
from rpmem.files.partfile import PartFile
from rpmem.files.poolset import PoolSet
from rpmem.files.shutdown import ShutdownState, checked, state_when_made

if TYPE_CHECKING:
    from rpmem.files.setfile import SetFile
    from rpmem.memory.region import Region

#: Bytes at the beginning that include the record of how a pool was left.
LOOKED_AT = POOL_FLOOR + 4096
#: The kernel's errors for pages that it could not write.
_NOT_WRITTEN = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


def map_parts(spans: Sequence[tuple[int, int, int]]) -> Region:
    """Map pieces of open files, finding out their media; see :meth:`Region.map_parts`."""
    from rpmem.memory.region import Region

    return Region.map_parts(spans)


class PoolFiles(Closing):
    """An open pool: its locked parts and their memory.

    Made by :meth:`create` and :meth:`open`.

    Attributes
    ----------
    region : Region
        The whole pool; offset 0 is the first byte of part 0, header included.
    size : int
        Its length.
    parts : list of PartFile
        In the order of the pool set.
    options : frozenset of str
        The pool set's options.
    created : bool
        Whether this object created the pool.
    segments : list of Segment
        Where the bytes of the region lie in each part.
    belongings : list of SetFile
        Other files that are closed with the pool, and removed if it is removed at closing.
    mapper : callable
        Of the class: makes a Region from the (fd, file offset, length) of each part.
    """

    mapper: ClassVar[Callable[[Sequence[tuple[int, int, int]]], Region]] = staticmethod(map_parts)

    def __init__(
        self,
        parts: list[PartFile],
        options: frozenset[str],
        headers: list[Header],
        region: Region,
        *,
        created: bool,
        segments: Sequence[Segment],
    ) -> None:
        self.segments = segments
        self.parts = parts
        self.options = options
        self.region = region
        self.size = region.size
        self.created = created
        self.belongings: list[SetFile] = []
        self._headers = headers
        self._headers_doubtful = False
        self._readonly = parts[0].readonly

    @classmethod
    def create(
        cls,
        pool_set: PoolSet,
        *,
        pool_size: int | None = None,
        attributes: PoolAttributes | None = None,
        mode: int = PRIVATE,
        hidden: bool = False,
        finished: bool = True,
    ) -> Self:
        """Create the parts and their headers, durable when this returns.

        Parameters
        ----------
        pool_set : PoolSet
            The pool set; its replicas are ignored.
        pool_size : int, optional
            Minimum size of the pool in bytes.
        attributes : PoolAttributes, optional
            The content of the headers; none for a set with ``OPTION NOHDRS``, and only for that.
        mode : int
            Permissions of new files, regardless of the umask.
        hidden : bool
            Leave new files without their names until `publish` is called.
        finished : bool
            Let the pool count when this returns. Otherwise it counts after `publish`: if the
            process is killed before, the next creation clears the leftovers.

        Raises
        ------
        AttributesRefused, PoolSetTooSmall, PoolSetMalformed
            The arguments do not fit together.
        PoolSetExists, PoolSetBusy, NoSpace, PoolSetDenied
            The file system does not allow it. In any case, files made by this call are gone, and no
            others were removed.
        """
        header.check_attributes(attributes, pool_set.options)
        drafts.clear(present(pool_set))
        pool_set = poolset.resolve(pool_set, create=True)
        _check_sizes(pool_set, pool_size)
        drafts.clear([part.path for part in pool_set.parts])
        parts: list[PartFile] = []
        region = None
        try:
            parts.extend(
                PartFile.create(each.path, each.size, mode, hidden=hidden)
                for each in pool_set.parts
            )
            redo.forget(parts[0].path)
            headers = _write_headers(pool_set, parts, attributes)
            region = _map(pool_set, parts, cls.mapper)
            pool = cls(
                parts, pool_set.options, headers, region, created=True, segments=pool_set.segments()
            )
            if finished and not hidden:
                pool.publish()
        except BaseException:
            # The traceback would keep the mapping alive.
            if region is not None:
                region.close()
            _undo(parts)
            raise
        return pool

    @classmethod
    def open(
        cls,
        pool_set: PoolSet,
        *,
        pool_size: int | None = None,
        was_closed: Callable[[bytes], bool] | None = None,
    ) -> Self:
        """Open a pool that exists, after checking every header.

        The pool is read from the disks: stores of an earlier writer that could not be written back
        may still be in the kernel's cache, and would never be written again.

        Parameters
        ----------
        pool_set : PoolSet
            The pool set; its replicas are ignored.
        pool_size : int, optional
            Minimum size of the pool in bytes.
        was_closed : callable, optional
            Takes the first `LOOKED_AT` bytes and returns whether they show that the whole pool was
            written back: then the cache may stay.

        Raises
        ------
        HeaderError
            A part is damaged, foreign or in the wrong place, or was never part of a pool.
        PoolSetNotFound, PoolSetBusy, PoolSetDenied, PoolSetMalformed, PoolSetTooSmall
            The parts differ from the pool set, or are not available.
        """
        pool_set = poolset.resolve(pool_set)
        _check_sizes(pool_set, pool_size)
        parts: list[PartFile] = []
        region = None
        try:
            parts.extend(PartFile.open(each.path, each.size) for each in pool_set.parts)
            _believe_the_disks(parts, was_closed)
            redo.finish(parts, _is_whole)
            headers = _verified_headers(pool_set, parts)
            region = _map(pool_set, parts, cls.mapper)
            pool = cls(
                parts,
                pool_set.options,
                headers,
                region,
                created=False,
                segments=pool_set.segments(),
            )
            if pool._detects_shutdowns:
                stored = headers[0].shutdown_state
                pool._note_shutdown_state(checked(parts, stored))
            for part in parts:
                part.settle()
        except BaseException:
            # The traceback would keep the mapping alive, and the mapping the locks.
            if region is not None:
                region.close()
            for part in parts:
                part.close()
            raise
        return pool

    @classmethod
    def look(cls, pool_set: PoolSet) -> Self:
        """Open a pool read-only, even while it has a writer.

        Needs no write permission, takes no lock and changes nothing.

        Parameters
        ----------
        pool_set : PoolSet
            The pool set; its replicas are ignored.

        Raises
        ------
        HeaderError, PoolSetNotFound, PoolSetDenied, PoolSetMalformed, PoolSetTooSmall
            As `open` does.
        """
        pool_set = poolset.resolve(pool_set)
        _check_sizes(pool_set, None)
        parts: list[PartFile] = []
        try:
            parts.extend(PartFile.look(each.path, each.size) for each in pool_set.parts)
            headers = undisturbed(
                lambda: _verified_headers(pool_set, parts, redo.pending(parts, _is_whole) or ()),
                lambda: any(part.has_writer for part in parts),
            )
            if headers and headers[0].incompat & header.INCOMPAT_SDS:
                checked(parts, headers[0].shutdown_state)
            region = _map(pool_set, parts, _map_to_look)
        except BaseException:
            for part in parts:
                part.close()
            raise
        return cls(
            parts, pool_set.options, headers, region, created=False, segments=pool_set.segments()
        )

    @property
    def zeroed(self) -> bool:
        """Whether this object made all files: what is behind their headers was zero then."""
        return self.created and all(part.draft is not None for part in self.parts)

    @property
    def has_writer(self) -> bool:
        """Whether another process has the pool, read-only here, open for writing."""
        return any(part.has_writer for part in self.parts if part.readonly)

    @contextmanager
    def again(self) -> Iterator[tuple[Region, Callable[[], None]]]:
        """Map the files once more; yield that memory, and what leaves the first one to its views.

        The memory that was mapped again is the caller's, unless an error leaves the block.
        """
        with ExitStack() as opened:
            descriptors = [opened.enter_context(part.unlocked()) for part in self.parts]
            spans = [(fd, *each) for fd, each in zip(descriptors, self.region.parts, strict=True)]
            memory = type(self).mapper(spans)
            memory.label = self.region.label
            try:
                yield memory, lambda: self.region.leave(descriptors)
            except BaseException:
                memory.close()
                raise

    def publish(self) -> None:
        """Make the new files count, all or none of them, durably.

        Raises
        ------
        PoolSetExists
            Another process made a file of that name meanwhile.
        """
        drafts.publish([part.draft for part in self.parts if part.draft is not None])

    @property
    def attributes(self) -> PoolAttributes | None:
        """The attributes in the headers; None for a pool without headers."""
        return self._headers[0].attributes if self._headers else None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has succeeded."""
        return self.region.closed

    def set_attributes(self, attributes: PoolAttributes) -> None:
        """Rewrite the headers with other attributes; all of them change, or none.

        Raises
        ------
        AttributesRefused
            They do not fit the pool set's options.
        """
        if self.closed:
            raise errors.ClosedError("the pool is closed", where=self.parts[0].path)
        changed = header.with_attributes(
            self._headers, attributes, options=self.options, where=self.parts[0].path
        )
        if not changed:
            return
        # Until all of it is done, this object may be out of date, unlike the note next to the
        # parts.
        self._headers_doubtful = True
        try:
            redo.replace_headers(self.parts, [content.pack() for content in changed])
        except errors.PoolSetError as error:
            # An fsync of a part may have reported a page of the region.
            if error.errno in _NOT_WRITTEN:
                self.region.refuse(error.errno)
            raise
        self._headers = changed
        self._headers_doubtful = False

    def close(self, *, remove: bool = False) -> None:
        """Unmap and unlock; closing again is harmless.

        Parameters
        ----------
        remove : bool
            Remove the parts as well. Files that existed before :meth:`create` stay, without their
            headers.

        Raises
        ------
        BufferError
            The memory is still in use; nothing was closed.
        """
        if self.closed:
            return
        self.region.close()
        try:
            if remove:
                self._remove()
            elif self.region.refused:
                # Not shut down cleanly; data that the disks do not have must not be seen any more.
                for part in self.parts:
                    part.drop_cache()
            elif self._detects_shutdowns and not (self._headers_doubtful or self._readonly):
                self._note_shutdown_state(None)
        finally:
            _each([each.close for each in self.belongings] + [each.close for each in self.parts])

    def _remove(self) -> None:
        """Remove all that can be removed; raise the first error."""
        redo.forget(self.parts[0].path)
        steps = [part.undo if self.created else part.remove for part in self.parts]
        # First: who finds no parts there begins another pool, whose file it would be.
        reserving = [each.reserve for each in self.belongings]
        _each(reserving + steps + [each.remove for each in self.belongings])

    @property
    def _detects_shutdowns(self) -> bool:
        return bool(self._headers and self._headers[0].incompat & header.INCOMPAT_SDS)

    def _note_shutdown_state(self, state: ShutdownState | None) -> None:
        content = bytes(64) if state is None else state.pack()
        self._headers[0] = replace(self._headers[0], shutdown_state=content)
        # Its checksum changes too: after a half-done write, the pool could not be opened any more.
        redo.replace_headers(self.parts, [self._headers[0].pack()])


def _each(steps: Sequence[Callable[[], None]]) -> None:
    """Take every step, even if others fail; raise the first error."""
    failure: errors.PoolSetError | None = None
    for step in steps:
        try:
            step()
        except errors.PoolSetError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _write_headers(
    pool_set: PoolSet, parts: Sequence[PartFile], attributes: PoolAttributes | None
) -> list[Header]:
    """Write the headers of a new pool, durably."""
    headers = header.headers_for(
        attributes,
        len(parts),
        options=pool_set.options,
        crtimes=[part.change_time for part in parts],
        shutdown=state_when_made(parts),
    )
    for part, content in zip(parts, headers, strict=False):
        part.write_header(content.pack())
    for part in parts:
        part.sync()
    return headers


def _undo(parts: Sequence[PartFile]) -> None:
    """Undo a failed creation; leftovers can be recognized by their hidden names later."""
    for part in parts:
        with suppress(errors.PoolSetError):
            part.undo()
        part.close()


def _check_sizes(pool_set: PoolSet, wanted: int | None) -> None:
    pool_set.check_part_sizes()
    present = pool_set.copy_size(pool_set.parts)
    if wanted is not None and wanted > present:
        raise errors.PoolSetTooSmall(
            f"the pool set holds {present} bytes, but {wanted} were asked for",
            where=pool_set.source,
            hint="Enlarge its parts, or replicate less",
        )


def _believe_the_disks(
    parts: Sequence[PartFile], was_closed: Callable[[bytes], bool] | None
) -> None:
    """Drop cached data of the parts that their disks may not have."""
    for part in parts:
        part.sync()
    if was_closed is not None and not parts[0].is_device:
        parts[0].drop_cache(LOOKED_AT)
        if was_closed(parts[0].read_beginning(LOOKED_AT)):
            return
    for part in parts:
        part.drop_cache()


def _map(
    pool_set: PoolSet,
    parts: Sequence[PartFile],
    mapper: Callable[[Sequence[tuple[int, int, int]]], Region],
) -> Region:
    try:
        with ExitStack() as opened:
            region = mapper(
                [
                    (opened.enter_context(part.unlocked()), segment.file_offset, segment.length)
                    for part, segment in zip(parts, pool_set.segments(), strict=True)
                ]
            )
    except errors.RpmemError as error:
        error.at(pool_set.source)
        raise
    region.label = pool_set.source
    return region


def _map_to_look(spans: Sequence[tuple[int, int, int]]) -> Region:
    from rpmem.memory.region import Region

    return Region.map_parts(spans, writable=False)


def _verified_headers(
    pool_set: PoolSet, parts: Sequence[PartFile], noted: Sequence[bytes] = ()
) -> list[Header]:
    """Return the headers of the parts, replaced by those in `noted`."""
    with_header = parts[: header.header_count(len(parts), pool_set.options)]
    contents = [*noted, *(part.read_header() for part in with_header[len(noted) :])]
    where = [part.path for part in with_header]
    headers = [Header.unpack(*each) for each in zip(contents, where, strict=False)]
    header.verify(headers, options=pool_set.options, where=where)
    return headers


def _is_whole(content: bytes) -> bool:
    unpacked = Header.unpack(content)
    return unpacked.checksum == unpacked.expected_checksum
