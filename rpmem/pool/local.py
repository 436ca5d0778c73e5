"""Places for the local copy of a pool: a plain file, the parts of a pool set, or a buffer.

`place_of` turns a user's argument into a place; a place makes, opens or removes the copy. After
that, all copies look alike: a region, the attributes in its header, and ways to close it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from rpmem.base import interrupts
from rpmem.base.handles import Handle
from rpmem.base.pool_format import HEADER_SIZE, MINIMUM_SIZE, RECORD_OFFSET, RECORD_SIZE
from rpmem.base.remedies import from_oserror
from rpmem.base.target import ReplicaSpec, Target
from rpmem.base.values import replace
from rpmem.epochs import codec
from rpmem.epochs.record import Mark
from rpmem.errors import (
    BufferRefused,
    CatalogueCorrupt,
    HeaderError,
    PoolSetError,
    PoolSetMalformed,
    PoolSetNotFound,
    UsageError,
)
from rpmem.files import header, poolfiles
from rpmem.files.beneath import Content, read_beneath
from rpmem.files.drafts import PRIVATE
from rpmem.files.header import INCOMPAT_SINGLEHDR, Header, PoolAttributes
from rpmem.files.poolset import LocalReplica, PoolSet, RemoteReplica, load_any, single
from rpmem.files.removal import remove_parts
from rpmem.files.setfile import held, held_alone
from rpmem.memory.region import Region
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, Layout

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PAGE = 4096
_WORD = 8


class LocalCopy(Protocol):
    """An open local copy."""

    region: Region
    where: str
    #: Whether nobody but pools writes to its memory.
    keeps_zeros: bool

    @property
    def zeroed(self) -> bool:
        """Whether every byte behind the header is zero, as this object made the copy so."""

    @property
    def attributes(self) -> PoolAttributes | None:
        """The attributes in the header; None without one."""

    @property
    def has_writer(self) -> bool:
        """Whether another process writes to the copy that this one only reads."""

    def again(self) -> AbstractContextManager[tuple[Region, Callable[[], None]]]:
        """Map the copy once more, and leave the first mapping to its views; see `PoolFiles.again`.

        Only where nobody but pools writes to it.
        """

    def publish(self) -> None:
        """Make a new copy count, as it now contains a pool that can be opened."""

    def beneath(self, offset: int, length: int) -> Content | None:
        """Read a range from the medium, past the memory; None where that is the medium."""

    def close(self, *, remove: bool = False) -> None:
        """Unmap and unlock; BufferError, without any effect, while views of the memory exist."""

    def release(self) -> None:
        """Unlock, and leave the memory to the views that still use it."""


class Place(Protocol):
    """A place for a local copy."""

    where: str
    replicas: list[ReplicaSpec]
    incompat: int

    def create(self, size: int | None, attributes: PoolAttributes, mode: int) -> LocalCopy:
        """Make a new copy, in files with permissions `mode`."""

    def open(self) -> LocalCopy:
        """Open the existing copy."""

    def look(self) -> LocalCopy:
        """Open the existing copy read-only; changes nothing, excludes no other process."""


def place_of(local: str | os.PathLike[str] | Buffer) -> Place:
    """Return the place for a user's argument.

    Parameters
    ----------
    local : path or buffer
        A path is that of a poolset(5) file or of a plain file; anything else must be a writable
        C-contiguous buffer.
    """
    if isinstance(local, bytes):
        raise UsageError("the path of a pool is a str or a pathlib.Path, not bytes")
    if isinstance(local, str | os.PathLike):
        # This may open a file, which must not be lost to a signal.
        path = local
        return interrupts.guarded(lambda: FilePlace(path))
    return MemoryPlace(local)


# --- files ------------------------------------------------------------------------------------


class FileCopy(Handle):
    """A local copy in locked and mapped files."""

    keeps_zeros = True

    def __init__(self, files: poolfiles.PoolFiles, where: str) -> None:
        self._files = files
        self.region = files.region
        self.region.label = where
        self.where = where

    @property
    def zeroed(self) -> bool:
        """Whether the files are new, all of them, and nothing was written behind their headers."""
        return self._files.zeroed

    @property
    def attributes(self) -> PoolAttributes | None:
        """The attributes in the header; None for a pool set with ``OPTION NOHDRS``."""
        return self._files.attributes

    @property
    def has_writer(self) -> bool:
        """Whether another process has the files open for writing; False if this one has."""
        return self._files.has_writer

    def again(self) -> AbstractContextManager[tuple[Region, Callable[[], None]]]:
        """Map the files once more, and leave the first mapping to its views."""
        return self._files.again()

    def publish(self) -> None:
        """Make the new files count, durably."""
        self._files.publish()

    def beneath(self, offset: int, length: int) -> Content | None:
        """Read a range from the medium, past the memory; None where that is the medium."""
        return read_beneath(self._files, offset, length)

    def close(self, *, remove: bool = False) -> None:
        """Unmap and unlock, and with `remove` remove the new parts."""
        self._files.close(remove=remove)

    def __del__(self) -> None:
        self.release()

    def release(self) -> None:
        """Unlock, and leave the mapping to the views that still use it."""
        for part in self._files.parts:
            part.close()


class FilePlace:
    """A plain file, or the parts of a poolset(5) file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.where = _absolute(path)
        self._set: PoolSet | None = None
        with suppress(PoolSetNotFound):
            found = _described(self.where)
            self._set = None if _is_plain(found, self.where) else found
        self.replicas = [] if self._set is None else _remote_replicas(self._set, self.where)
        single = self._set is not None and "SINGLEHDR" in self._set.options
        self.incompat = INCOMPAT_SINGLEHDR if single else 0

    def create(self, size: int | None, attributes: PoolAttributes, mode: int = PRIVATE) -> FileCopy:
        """Make the files, which must not exist, or must be zeroed and of the right size.

        They count once the copy is published.
        """
        return FileCopy(self._made(size, attributes, mode, finished=False), self.where)

    def open(self) -> FileCopy:
        """Lock, check and map the files."""
        pool_set = _described(self.where) if self._set is None else self._set
        files = poolfiles.PoolFiles.open(pool_set, was_closed=_was_closed)
        return FileCopy(files, self.where)

    def look(self) -> FileCopy:
        """Check the files and map them read-only, without a lock."""
        pool_set = _described(self.where) if self._set is None else self._set
        return FileCopy(poolfiles.PoolFiles.look(pool_set), self.where)

    def create_hidden(
        self, size: int, attributes: PoolAttributes, mode: int = PRIVATE
    ) -> HiddenCopy:
        """Make the files under hidden names, to be published when they are complete."""
        return HiddenCopy(self._made(size, attributes, mode, hidden=True), self.where)

    def _made(
        self,
        size: int | None,
        attributes: PoolAttributes,
        mode: int,
        *,
        hidden: bool = False,
        finished: bool = True,
    ) -> poolfiles.PoolFiles:
        """Make the files while no other process can; nothing is left behind if that fails."""
        files: poolfiles.PoolFiles | None = None
        try:
            with held(self._set_file):
                files = poolfiles.PoolFiles.create(
                    self._parts_for(size),
                    pool_size=size,
                    attributes=self._fitting(attributes),
                    mode=mode,
                    hidden=hidden,
                    finished=finished,
                )
        except BaseException:
            # The pool set file could not be released.
            if files is not None:
                files.close(remove=True)
            raise
        return files

    def remove(self, *, force: bool = False, pool_set_too: bool = False) -> None:
        """Remove the parts, and with `pool_set_too` the poolset(5) file that names them."""
        in_use = False
        with held_alone(self._set_file if pool_set_too else None) as set_file:
            if force:
                in_use = remove_parts(_described(self.where), force=True)
            else:
                # Opened first: a file without a good header may be anything, so it must not be
                # removed.
                self._open_to_remove().close(remove=True)
            if set_file is not None and not in_use:
                set_file.remove()

    def _open_to_remove(self) -> FileCopy:
        try:
            return self.open()
        except (HeaderError, PoolSetNotFound) as error:
            if os.path.lexists(self.where):
                error.hint = (
                    "It is not a complete pool: --force (force=True) removes what is left of it"
                )
            raise

    @property
    def _set_file(self) -> str | None:
        return None if self._set is None else self.where

    def _parts_for(self, size: int | None) -> PoolSet:
        if self._set is not None:
            return self._set
        if size is None:
            raise UsageError(
                "a new pool in a plain file needs a size",
                where=self.where,
                hint='Give one, for example size="64MiB"',
            )
        if size < MINIMUM_SIZE:
            raise UsageError(
                f"{size} bytes are not enough for a pool in a file",
                where=self.where,
                hint=f"The smallest has {MINIMUM_SIZE} bytes (2 MiB)",
            )
        return single(self.where, -(-size // _PAGE) * _PAGE)

    def _fitting(self, attributes: PoolAttributes) -> PoolAttributes | None:
        if self._set is not None and "NOHDRS" in self._set.options:
            return None
        return replace(
            attributes, incompat=attributes.incompat & ~INCOMPAT_SINGLEHDR | self.incompat
        )


def _absolute(path: str | os.PathLike[str]) -> str:
    name: Any = os.fspath(path)
    try:
        if isinstance(name, bytes) or not name or b"\0" in os.fsencode(name):
            raise UsageError(f"{name!r} is not a path")
    except UnicodeEncodeError:
        raise UsageError(f"{name!r} is not a path: it cannot be encoded") from None
    try:
        return str(os.path.abspath(name))
    except OSError as error:
        raise from_oserror(
            error,
            "the working directory no longer exists",
            where=name,
            hint="Give an absolute path",
        ) from error


def _was_closed(beginning: bytes) -> bool:
    """Whether a copy with this beginning was marked as complete by its last writer."""
    try:
        layout = Layout.unpack(beginning[LAYOUT_OFFSET:][:LAYOUT_SIZE])
        area = beginning[RECORD_OFFSET:][:RECORD_SIZE]
        found = codec.read(area, pool_id=layout.pool_id)
    except (CatalogueCorrupt, HeaderError):
        return False
    return found is not None and found.settled and found.record.mark is Mark.CLEAN


def _described(path: str) -> PoolSet:
    # Without a lock: opening the parts will show whether they are in use.
    try:
        return load_any(path, lock=False)
    except PoolSetNotFound:
        raise PoolSetNotFound(
            "there is no such pool", where=path, hint="Create it, or correct the name"
        ) from None


class HiddenCopy(FileCopy):
    """A local copy that cannot be opened yet, because its files do not have their names."""

    def publish(self) -> None:
        """Give every file its name, durably; never replaces an existing file.

        Raises
        ------
        PoolSetExists
            Another process made such a file meanwhile; then none of ours has a name.
        """
        self.region.deep_persist(0, self.region.size)
        for part in self._files.parts:
            part.sync()
        self._files.publish()


def _is_plain(pool_set: PoolSet, path: str) -> bool:
    return [part.path for part in pool_set.parts] == [path]


def _remote_replicas(pool_set: PoolSet, where: str) -> list[ReplicaSpec]:
    specs = []
    for item in pool_set.replicas:
        if isinstance(item, LocalReplica):
            raise PoolSetMalformed(
                "a REPLICA section with local parts is not supported",
                where=where,
                hint="Replicate to another directory of this machine with a line such as "
                "REPLICA local:/directory name.set",
            )
        specs.append(_spec(item))
    return specs


def _spec(item: RemoteReplica) -> ReplicaSpec:
    return ReplicaSpec(Target.parse(item.target), item.pool_set)


# --- memory -----------------------------------------------------------------------------------


class MemoryCopy(Handle):
    """A local copy in a buffer, which others may write to."""

    keeps_zeros = False
    zeroed = False

    def __init__(self, region: Region, where: str) -> None:
        self.region = region
        self.where = where

    @property
    def attributes(self) -> PoolAttributes | None:
        """The attributes in the header."""
        with memoryview(self.region) as view:
            found = Header.unpack(bytes(view[:HEADER_SIZE]), self.where)
        return header.verify([found], where=[self.where])

    def close(self, *, remove: bool = False) -> None:
        """Release the buffer, and with `remove` clear the header in it."""
        if remove and not self.region.closed:
            with memoryview(self.region) as view:
                view[:HEADER_SIZE] = bytes(HEADER_SIZE)
        self.region.close()

    @property
    def has_writer(self) -> bool:
        """False: nothing is known about other users of a buffer."""
        return False

    def again(self) -> AbstractContextManager[tuple[Region, Callable[[], None]]]:
        """Refuse: what a buffer's owner stores cannot be kept from it."""
        raise UsageError("a buffer cannot be mapped again", where=self.where)

    def beneath(self, offset: int, length: int) -> Content | None:
        """Return None: the buffer is all there is."""

    def publish(self) -> None:
        """Do nothing: a buffer has no name."""

    def release(self) -> None:
        """Leave the buffer to the views that still use it."""


class MemoryPlace:
    """A writable buffer: a numpy array, a bytearray, a mmap, shared memory, a Region."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.where = f"the {type(buffer).__name__}"
        self.replicas: list[ReplicaSpec] = []
        self.incompat = 0

    def create(
        self, size: int | None, attributes: PoolAttributes, mode: int = PRIVATE
    ) -> MemoryCopy:
        """Lay out a pool in the buffer, overwriting its content."""
        copy = self._take()
        if size is not None and size != copy.region.size:
            found = copy.region.size
            copy.close()
            raise UsageError(
                f"the buffer has {found} bytes, but size is {size}",
                where=self.where,
                hint="A pool uses the whole buffer: leave out size, or pass a slice",
            )
        content = header.headers_for(attributes, 1)[0].pack()
        with memoryview(copy.region) as view:
            view[: len(content)] = content
        return copy

    def open(self) -> MemoryCopy:
        """Use the pool in the buffer."""
        return self._take()

    def look(self) -> MemoryCopy:
        """Use the pool in the buffer, which need not be writable."""
        return self._take(writable=False)

    def _take(self, *, writable: bool = True) -> MemoryCopy:
        region = (
            self._buffer if isinstance(self._buffer, Region) else self._as_region(writable=writable)
        )
        if region.address % _WORD:
            raise BufferRefused(
                "the buffer does not start at a multiple of 8 bytes",
                where=self.where,
                hint="A crash could tear words; allocate with numpy or mmap",
            )
        if region.size < _PAGE:
            raise PoolSetError("the buffer is too small for a pool", where=self.where)
        return MemoryCopy(region, self.where)

    def _as_region(self, *, writable: bool) -> Region:
        region = Region.from_buffer(self._buffer, writable)
        region.label = self.where
        return region
