"""One part of a pool set: a file or a device DAX, opened, locked and closed.

A part is locked from the moment it is opened until it is closed, so the owner of a
:class:`PartFile` has it exclusively among all programs that follow the same rule, as PMDK's do. The
exception is a part opened read-only: it is neither locked nor changed.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from rpmem import errors
from rpmem.base import remedies
from rpmem.base.handles import Handle
from rpmem.base.pool_format import HEADER_SIZE, MINIMUM_SIZE
from rpmem.files import drafts, locks
from rpmem.files.drafts import PRIVATE, Draft, sync_directories

if TYPE_CHECKING:
    from rpmem.memory.region import Region


def _device_value(information: os.stat_result, name: str) -> int | None:
    """Read a number about a character device from sysfs."""
    device = f"{os.major(information.st_rdev)}:{os.minor(information.st_rdev)}"
    for place in (name, f"device/{name}"):
        with suppress(OSError, ValueError), open(f"/sys/dev/char/{device}/{place}") as file:
            return int(file.read(), 0)
    return None


@contextmanager
def _closed_if_it_fails(part: PartFile) -> Iterator[None]:
    try:
        yield
    except BaseException:
        part.close()
        raise


class PartFile(Handle):
    """An open part, locked unless it is read-only.

    Attributes
    ----------
    path : str
        Absolute path.
    fd : int
        Descriptor; -1 once closed.
    size : int
        Length of the file or device.
    draft : Draft or None
        For a file that this object made, what remains to be done before it counts.
    readonly : bool
        Whether it was opened read-only, by `look`.
    is_device : bool
        Whether it is a device DAX.
    change_time : int
        ``st_ctime`` in seconds.
    """

    def __init__(
        self, path: str, fd: int, *, draft: Draft | None = None, readonly: bool = False
    ) -> None:
        self.path = path
        self.fd = fd
        self.draft = draft
        self.readonly = readonly
        self._owner = os.getpid()
        _open_parts.add(self)
        try:
            self._examine()
        except BaseException:
            if draft is None:
                os.close(fd)
            raise

    def _examine(self) -> None:
        information = self._stat()
        self.is_device = stat.S_ISCHR(information.st_mode)
        self.change_time = int(information.st_ctime)
        self.size = information.st_size
        self._alignment = HEADER_SIZE
        if self.is_device:
            size = _device_value(information, "size")
            if size is None:
                raise errors.PoolSetMalformed("it is not a device DAX", where=self.path)
            self.size = size
            self._alignment = _device_value(information, "align") or MINIMUM_SIZE
        elif not stat.S_ISREG(information.st_mode):
            kind = "a directory" if stat.S_ISDIR(information.st_mode) else "not a regular file"
            raise errors.PoolSetMalformed(
                f"it is {kind}", where=self.path, hint="A part is a file or a device DAX"
            )

    @classmethod
    def create(
        cls, path: str, size: int | None, mode: int = PRIVATE, *, hidden: bool = False
    ) -> Self:
        """Make a part file, or use an existing one that is still empty.

        Parameters
        ----------
        path : str
            Absolute path; its directory exists.
        size : int or None
            Bytes to allocate; None: the size of a device.
        mode : int
            Permissions of a new file, regardless of the umask.
        hidden : bool
            Do not give it its name yet, and use no existing file.

        Returns
        -------
        PartFile
            It counts once its `draft` is published.

        Raises
        ------
        PoolSetExists
            The file exists and is not empty.
        PoolSetMalformed
            The file exists with another size.
        NoSpace
            The file system is full; nothing was left behind.
        """
        if os.path.lexists(path):
            return cls._present(path, size, hidden=hidden)
        draft = Draft(path, mode)
        part = None
        try:
            if not hidden:
                # Immediately: a second creator finds it locked, and does not ask for space as well.
                sync_directories([draft])
                draft.give_name()
            part = cls(path, draft.fd, draft=draft)
            part.allocate(size)
        except BaseException as error:
            if part is not None:
                part.fd = -1  # the draft closes it
            draft.discard()
            if isinstance(error, errors.PoolSetExists):
                return cls._present(path, size, hidden=hidden)
            raise
        return part

    @classmethod
    def _present(cls, path: str, size: int | None, *, hidden: bool) -> Self:
        """Use the file at `path` as a new part, if possible."""
        if hidden and not is_device(path):
            raise errors.PoolSetExists(
                "the file exists",
                where=path,
                hint="A pool is restored into new files only: move the old one away",
            )
        return cls._adopt(path, size)

    @classmethod
    def _adopt(cls, path: str, size: int | None) -> Self:
        part = cls.open(path, size, allocate=False)
        with _closed_if_it_fails(part):
            if any(part.read_header()):
                raise errors.PoolSetExists(
                    "it is not empty: its first 4096 bytes are not zero",
                    where=path,
                    hint="Remove the pool that is there (rpmem remove, with --force if it is not "
                    "whole), or use another pool set",
                )
            part.fill()
        return part

    @classmethod
    def open(cls, path: str, size: int | None = None, *, allocate: bool = True) -> Self:
        """Open and lock an existing part.

        Parameters
        ----------
        path : str
            Absolute path.
        size : int or None
            The size that it must have; None accepts any.
        allocate : bool
            Fill its holes, see `fill`.
        """
        part = cls(path, _open(path, os.O_RDWR))
        with _closed_if_it_fails(part):
            part.require_lock()
            part._require_size(size)
            if allocate:
                part.fill()
        return part

    @classmethod
    def look(cls, path: str, size: int | None = None) -> Self:
        """Open a part read-only: needs no write permission, takes no lock, changes nothing."""
        part = cls(path, _open(path, os.O_RDONLY | os.O_NONBLOCK), readonly=True)
        with _closed_if_it_fails(part):
            part._require_size(size)
        return part

    def require_lock(self) -> None:
        """Lock the part or raise :class:`PoolSetBusy`."""
        locks.lock(self.fd, self.path)
        # The previous owner of the lock may have removed it.
        if not drafts.leads_to(self.path, self.fd):
            raise errors.PoolSetBusy("it is being replaced by another process", where=self.path)

    @property
    def permissions(self) -> int:
        """Permission bits of the file."""
        return stat.S_IMODE(self._stat().st_mode)

    @property
    def has_writer(self) -> bool:
        """Whether another process has it open for writing; for a part opened read-only."""
        return locks.has_writer(self.fd)

    def _require_size(self, size: int | None) -> None:
        if not self.is_device:
            self.size = self._stat().st_size  # now that it is complete
        if size is not None and self.size != size:
            raise errors.PoolSetMalformed(
                f"it has {self.size} bytes, but the pool set says {size}",
                where=self.path,
                hint="If its creation was interrupted, remove the pool by force and create it "
                "again; otherwise correct the pool set file",
            )

    def _stat(self) -> os.stat_result:
        try:
            return os.fstat(self.fd)
        except OSError as error:
            raise remedies.from_oserror(error, "cannot be examined", where=self.path) from error

    def fill(self) -> None:
        """Allocate the blocks that are missing where a file has holes."""
        if not self.is_device and self._has_holes():
            self.allocate(self.size)

    def _has_holes(self) -> bool:
        # Neither is enough: the count includes blocks without data, and not every file system
        # reports its holes.
        return self._stat().st_blocks * 512 < self.size or self._holes() > 0

    def _holes(self) -> int:
        """Return how many bytes are holes according to the file system."""
        total = end = 0
        try:
            while end < self.size:
                begin = os.lseek(self.fd, end, os.SEEK_HOLE)
                end = self._next_data(begin)
                total += end - begin
        except OSError as error:
            raise remedies.from_oserror(error, "cannot be examined", where=self.path) from error
        return total

    def _next_data(self, begin: int) -> int:
        try:
            return os.lseek(self.fd, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return self.size  # no data after this

    def allocate(self, size: int | None) -> None:
        """Allocate all blocks of a file: a store into a hole on a full file system is fatal."""
        if size is None:
            raise errors.PoolSetMalformed(
                "its size is AUTO, but there is no such device", where=self.path
            )
        about = self._stat()
        lacking = size - about.st_blocks * 512
        if about.st_size == size:
            # Compressed data takes fewer blocks, and allocated blocks may count as holes.
            lacking = min(lacking, self._holes())
        try:
            # Checked first: a file system fills up completely before it reports a lack of space.
            room = os.fstatvfs(self.fd)
            if lacking > room.f_bavail * room.f_frsize > 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.posix_fallocate(self.fd, 0, size)
        except OSError as error:
            raise remedies.from_oserror(
                error, f"cannot be given {size} bytes", where=self.path
            ) from error
        self.size = size

    def read_header(self) -> bytes:
        """Return the first 4096 bytes."""
        if self.is_device:
            with self._window() as window, memoryview(window) as view:
                return bytes(view[:HEADER_SIZE])
        return self.read_beginning(HEADER_SIZE).ljust(HEADER_SIZE, b"\0")

    def read_beginning(self, length: int) -> bytes:
        """Return the first `length` bytes of a file, or fewer if it is shorter."""
        try:
            return os.pread(self.fd, length, 0)
        except OSError as error:
            raise remedies.from_oserror(error, "cannot be read", where=self.path) from error

    def write_header(self, header: bytes, offset: int = 0) -> None:
        """Replace the first bytes, or some of them, and wait until that is durable."""
        if self.is_device:
            with self._window() as window:
                window.write(offset, header)
                window.deep_persist(offset, len(header))
            return
        try:
            # One call: if the process is killed, either the old bytes or the new ones remain.
            written = os.pwrite(self.fd, header, offset)
            os.fdatasync(self.fd)
        except OSError as error:
            raise remedies.from_oserror(error, "cannot be written", where=self.path) from error
        if written != len(header):
            raise remedies.from_oserror(
                OSError(errno.EIO, ""), "cannot be written", where=self.path
            )

    def _window(self) -> Region:
        from rpmem.memory.region import Region

        window = (self.fd, 0, self._alignment)
        return Region.map_parts([window], writable=not self.readonly)

    def sync(self) -> None:
        """Make the contents of a new file durable."""
        if self.is_device:
            return
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise remedies.from_oserror(error, "cannot be made durable", where=self.path) from error

    def drop_cache(self, length: int = 0) -> None:
        """Make the next read of a file read from its disk.

        After a failed write the kernel keeps the page and considers it identical to the disk.

        Parameters
        ----------
        length : int
            Bytes from the beginning; 0: all.
        """
        if not self.is_device:
            with suppress(OSError):
                os.posix_fadvise(self.fd, 0, length, os.POSIX_FADV_DONTNEED)

    def remove(self) -> None:
        """Unlink the file; a device cannot be removed, so its header is cleared."""
        if self.is_device:
            self.write_header(bytes(HEADER_SIZE))
            return
        if drafts.unlink_or_give_up(self.path, self.fd, self.close):
            self.settle()

    def settle(self) -> None:
        """Durably drop the hidden name that a killed maker left on the file."""
        if drafts.drop_twins(self.path, self.fd):
            drafts.sync_directory(os.path.dirname(self.path))

    def undo(self) -> None:
        """Restore the state before :meth:`create`; a file that was made is closed."""
        if self.draft is None:
            self.write_header(bytes(HEADER_SIZE))
            return
        try:
            self.draft.discard()
        finally:
            self.fd = self.draft.fd

    @contextmanager
    def unlocked(self) -> Iterator[int]:
        """Open the file once more, to be mapped, and yield the descriptor.

        A mapping keeps its open file for as long as it exists, even in forked children. If that
        file held the locks, they would outlive a killed parent.
        """
        try:
            fd = os.open(f"/proc/self/fd/{self.fd}", self._flags | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            yield self.fd  # without /proc the locks may be held a little longer
            return
        try:
            yield fd
        finally:
            locks.let_go(fd)

    @property
    def _flags(self) -> int:
        return os.O_RDONLY if self.readonly else os.O_RDWR

    def close(self) -> None:
        """Unlock and close; closing again is harmless."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        if self.draft is not None:
            self.draft.fd = -1
        # Explicitly: closing is not enough if a mapping or a forked child still has the file. The
        # child itself must not unlock, as that would unlock it for the parent.
        locked = not self.readonly and os.getpid() == self._owner
        locks.close(fd, self.path, locked=locked)


# A forked child has no use for these, and would keep the locks after its parent was killed.
_open_parts: weakref.WeakSet[PartFile] = weakref.WeakSet()


def _drop_all() -> None:
    for part in list(_open_parts):
        part.close()


os.register_at_fork(after_in_child=_drop_all)


def is_device(path: str) -> bool:
    """Return whether there is a character device at a path."""
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False  # opening it will report what is wrong


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY)
    except IsADirectoryError:
        raise errors.PoolSetMalformed(
            "it is a directory", where=path, hint="A part is a file or a device DAX"
        ) from None
    except FileNotFoundError as error:
        raise remedies.from_oserror(
            error,
            "the part cannot be opened",
            where=path,
            hint="Create the pool if there is none yet; otherwise restore it from a replica",
        ) from error
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be opened", where=path) from error
