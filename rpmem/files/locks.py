"""The locks on files: taken immediately or not at all, and released explicitly.

A part in use has two locks. ``flock`` is the one that PMDK's programs take and check; any process
that can read a file can take it. The other is a write lock of the open file (``F_OFD_SETLK``): it
needs write permission, so its presence means that a writer is at work. Neither is checked by taking
it, so reading a pool disturbs no other process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from rpmem import errors
from rpmem.base import remedies

_Read = TypeVar("_Read")
_LOOKS = 200
_LOOK_AGAIN_S = 0.005

# struct flock: type, whence, start, length (0: to the end), pid (0, as the kernel requires)
_FLOCK = struct.Struct("hhqqi4x")
_WHOLE_FILE = (os.SEEK_SET, 0, 0, 0)
_NO_SUCH_LOCKS = (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def lock(descriptor: int, where: str) -> None:
    """Take the exclusive locks of a file that is open for writing, or fail immediately.

    Raises
    ------
    PoolSetBusy
        Another process holds one.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(descriptor, where) from None
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be locked", where=where) from error
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, *_WHOLE_FILE))
    except (BlockingIOError, PermissionError):
        with suppress(OSError):  # the caller closes the file, which also releases it
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        raise _busy(descriptor, where) from None
    except OSError as error:
        # Some file systems have only the first kind, which is the exclusive one.
        if error.errno not in _NO_SUCH_LOCKS:
            raise remedies.from_oserror(error, "cannot be locked", where=where) from error


def close(descriptor: int, where: str, *, locked: bool = True) -> None:
    """Unlock a file, see `unlock`, and close it."""
    try:
        try:
            if locked:
                unlock(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise remedies.from_oserror(error, "cannot be closed", where=where) from error


def unlock(descriptor: int) -> None:
    """Release the locks, even if a forked child or a mapping holds the same open file."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, *_WHOLE_FILE))
    except OSError as error:
        if error.errno not in _NO_SUCH_LOCKS:
            raise
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def let_go(descriptor: int) -> None:
    """Close a file that was not written to through this descriptor.

    Errors of close() do not concern such a caller: they are about bytes that were written and not
    flushed, and the descriptor is closed in any case.
    """
    try:
        os.close(descriptor)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise


def has_writer(descriptor: int) -> bool:
    """Whether a writer that follows our rules has the file open; found out without a lock."""
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, *_WHOLE_FILE))
    except OSError as error:
        # Mostly a file system without such locks: then nothing is known about writers.
        if error.errno in _NO_SUCH_LOCKS:
            return False
        raise remedies.from_oserror(error, "its locks cannot be examined") from error
    kind: int = _FLOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK


def undisturbed(read: Callable[[], _Read], has_writer: Callable[[], bool]) -> _Read:
    """Return what `read` finds in a pool that another process may be writing to.

    Apparent damage may be an update in progress. So it is read again while there is a writer, and
    once more after that.
    """
    alone = 0
    for _ in range(_LOOKS):
        try:
            return read()
        except (errors.CatalogueCorrupt, errors.HeaderError):
            alone += not has_writer()
            if alone > 1:
                raise
            time.sleep(_LOOK_AGAIN_S)
    return read()


def _busy(descriptor: int, where: str) -> errors.PoolSetBusy:
    holder = _holder(descriptor)
    if holder == os.getpid():
        return errors.PoolSetBusy(
            "this process has it open already", where=where, hint="Close the other object first"
        )
    if holder is not None and not os.path.exists(f"/proc/{holder}"):
        return errors.PoolSetBusy(
            f"process {holder}, which opened it, has ended, but a child that it forked is still "
            "running",
            where=where,
            hint="End that child, or start children with the spawn method",
        )
    hint = None
    if not has_writer(descriptor):
        hint = (
            "It is not open in rpmem: a program of PMDK uses it, or another program has locked it "
            "(see lslocks)"
        )
    who = "another process" if holder is None else f"another process, {holder}"
    return errors.PoolSetBusy(f"it is in use by {who}", where=where, hint=hint)


def _holder(descriptor: int) -> int | None:
    """Return the id of the process that took the flock of a file, if the kernel tells.

    It is the one that took it, even if only a forked child still has the open file.
    """
    information = os.fstat(descriptor)
    major, minor = os.major(information.st_dev), os.minor(information.st_dev)
    wanted = f"{major:02x}:{minor:02x}:{information.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    for _, kind, *_, pid, place, _, _ in (line for line in lines if "->" not in line):
        if kind == "FLOCK" and place == wanted and int(pid) > 0:
            return int(pid)
    return None
