"""One part of a pool set: a file or a device DAX, opened, locked and given back.

A part is locked (``flock``) from the moment it is opened until it is closed, so whoever has a
:class:`PartFile` is alone with it among all who follow the same rule; PMDK's programs do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from rpmem import errors

if TYPE_CHECKING:
    from rpmem._pmem import Region

HEADER_SIZE = 4096
MINIMUM_SIZE = 2 << 20


def sync_directory_of(path: str) -> None:
    """Make the directory entry of a file durable."""
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int, where: str) -> None:
    """Take the exclusive lock of an open file, or fail at once.

    Raises
    ------
    PoolSetBusy
        Someone else has it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise errors.PoolSetBusy("it is in use by another process", where=where) from None
    except OSError as error:
        raise errors.from_oserror(error, "cannot be locked", where=where) from error


def _device_value(information: os.stat_result, name: str) -> int | None:
    """Read a number that sysfs has about a character device."""
    device = f"{os.major(information.st_rdev)}:{os.minor(information.st_rdev)}"
    for place in (name, f"device/{name}"):
        with suppress(OSError, ValueError), open(f"/sys/dev/char/{device}/{place}") as file:
            return int(file.read(), 0)
    return None


class PartFile:
    """An open and locked part.

    Attributes
    ----------
    path : str
        Absolute path.
    fd : int
        Descriptor, readable and writable.
    size : int
        Length of the file or device.
    made : bool
        Whether this object created the file.
    is_device : bool
        Whether it is a device DAX.
    change_time : int
        ``st_ctime`` in seconds.
    """

    def __init__(self, path: str, fd: int, *, made: bool) -> None:
        self.path = path
        self.fd = fd
        self.made = made
        information = os.fstat(fd)
        self.is_device = stat.S_ISCHR(information.st_mode)
        self.change_time = int(information.st_ctime)
        self.size = information.st_size
        self._alignment = HEADER_SIZE
        if self.is_device:
            size = _device_value(information, "size")
            if size is None:
                raise errors.PoolSetMalformed("it is no device DAX", where=path)
            self.size = size
            self._alignment = _device_value(information, "align") or MINIMUM_SIZE
        elif not stat.S_ISREG(information.st_mode):
            kind = "a directory" if stat.S_ISDIR(information.st_mode) else "no regular file"
            raise errors.PoolSetMalformed(
                f"it is {kind}", where=path, hint="A part is a file or a device DAX"
            )

    @classmethod
    def create(cls, path: str, size: int | None, mode: int = 0o666) -> Self:
        """Make a part file, or take one that is there and still empty.

        Parameters
        ----------
        path : str
            Absolute path; its directory exists.
        size : int or None
            Bytes to allocate; None takes what a device has.
        mode : int
            Permissions of a new file, reduced by the umask.

        Raises
        ------
        PoolSetExists
            The file is there and holds something already.
        PoolSetMalformed
            The file is there with another size.
        NoSpace
            The file system is full; nothing was left behind.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            return cls._adopt(path, size)
        except OSError as error:
            raise errors.from_oserror(error, "cannot be created", where=path) from error
        try:
            part = cls(path, fd, made=True)
            part.require_lock()
            part.allocate(size)
        except BaseException:
            os.unlink(path)
            os.close(fd)
            raise
        return part

    @classmethod
    def _adopt(cls, path: str, size: int | None) -> Self:
        part = cls.open(path, size)
        try:
            if any(part.read_header()):
                raise errors.PoolSetExists(
                    "it is not empty: its first 4096 bytes are not zero",
                    where=path,
                    hint="Remove the pool that is there (rpmem remove), or use another pool set",
                )
            if not part.is_device:
                part.allocate(part.size)
        except BaseException:
            part.close()
            raise
        return part

    @classmethod
    def open(cls, path: str, size: int | None = None) -> Self:
        """Open and lock a part that exists.

        Parameters
        ----------
        path : str
            Absolute path.
        size : int or None
            What its size must be; None accepts any.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        except IsADirectoryError:
            raise errors.PoolSetMalformed(
                "it is a directory", where=path, hint="A part is a file or a device DAX"
            ) from None
        except OSError as error:
            raise errors.from_oserror(error, "cannot be opened", where=path) from error
        try:
            part = cls(path, fd, made=False)
            part.require_lock()
            if size is not None and part.size != size:
                raise errors.PoolSetMalformed(
                    f"it has {part.size} bytes where the pool set says {size}", where=path
                )
        except BaseException:
            os.close(fd)
            raise
        return part

    def require_lock(self) -> None:
        """Lock the part or raise :class:`PoolSetBusy`."""
        lock(self.fd, self.path)
        # Whoever had it locked before us may have removed it.
        try:
            current = os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except OSError as error:
            raise errors.from_oserror(error, "cannot be opened", where=self.path) from error
        if not current:
            raise errors.PoolSetBusy("it is being replaced by another process", where=self.path)

    def allocate(self, size: int | None) -> None:
        """Give a file all its blocks: a store into a hole of a full file system is fatal."""
        if size is None:
            raise errors.PoolSetMalformed(
                "its size is AUTO, but there is no such device", where=self.path
            )
        try:
            # Asked first: a file system fills up to the brim before it says that it has no room.
            room = os.fstatvfs(self.fd)
            lacking = size - os.fstat(self.fd).st_blocks * 512
            if lacking > room.f_bavail * room.f_frsize > 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.posix_fallocate(self.fd, 0, size)
        except OSError as error:
            raise errors.from_oserror(
                error, f"cannot be given {size} bytes", where=self.path
            ) from error
        self.size = size

    def read_header(self) -> bytes:
        """Return the first 4096 bytes."""
        if self.is_device:
            with self._window() as window, memoryview(window) as view:
                return bytes(view[:HEADER_SIZE])
        try:
            return os.pread(self.fd, HEADER_SIZE, 0).ljust(HEADER_SIZE, b"\0")
        except OSError as error:
            raise errors.from_oserror(error, "cannot be read", where=self.path) from error

    def write_header(self, header: bytes, offset: int = 0) -> None:
        """Replace the first bytes, or some of them, and wait until that is durable."""
        if self.is_device:
            with self._window() as window:
                window.write(offset, header)
                window.deep_persist(offset, len(header))
            return
        try:
            # One call: a process that is killed leaves the old bytes or the new ones.
            written = os.pwrite(self.fd, header, offset)
            os.fdatasync(self.fd)
        except OSError as error:
            raise errors.from_oserror(error, "cannot be written", where=self.path) from error
        if written != len(header):
            raise errors.from_oserror(OSError(errno.EIO, ""), "cannot be written", where=self.path)

    def _window(self) -> Region:
        from rpmem._pmem import Region

        return Region.map_parts([(self.fd, 0, self._alignment)])

    def sync(self) -> None:
        """Make a new file and its directory entry durable."""
        if self.is_device:
            return
        try:
            os.fsync(self.fd)
            sync_directory_of(self.path)
        except OSError as error:
            raise errors.from_oserror(error, "cannot be made durable", where=self.path) from error

    def remove(self) -> None:
        """Unlink the file; a device cannot go, so its header is cleared."""
        if self.is_device:
            self.write_header(bytes(HEADER_SIZE))
            return
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise errors.from_oserror(error, "cannot be removed", where=self.path) from error

    def undo(self) -> None:
        """Put things back as they were before :meth:`create`."""
        if self.made:
            self.remove()
        else:
            self.write_header(bytes(HEADER_SIZE))

    def close(self) -> None:
        """Unlock and close; harmless when done twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
