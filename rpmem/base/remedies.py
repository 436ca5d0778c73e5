"""What failed calls of the system mean, and what a user can do about them."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from types import MappingProxyType

from rpmem.errors import (
    NoSpace,
    PoolSetBusy,
    PoolSetDenied,
    PoolSetError,
    PoolSetExists,
    PoolSetNotFound,
)

_OSERROR_KINDS: Mapping[int, type[PoolSetError]] = MappingProxyType(
    {
        errno.ENOENT: PoolSetNotFound,
        errno.ENOTDIR: PoolSetNotFound,
        errno.EACCES: PoolSetDenied,
        errno.EPERM: PoolSetDenied,
        errno.EROFS: PoolSetDenied,
        errno.EEXIST: PoolSetExists,
        errno.EWOULDBLOCK: PoolSetBusy,
        errno.EBUSY: PoolSetBusy,
        errno.ENOSPC: NoSpace,
        errno.EDQUOT: NoSpace,
    }
)


#: What to do about a failed call on a file, whatever the call was.
_OSERROR_HINTS: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOENT: "Create it, or correct the path",
        errno.ENOTDIR: "Correct the path: the part before the last / is not a directory",
        errno.EACCES: "Check who owns the file and its directories, and their permissions",
        errno.EPERM: "Check who owns the file, its permissions and its attributes (lsattr)",
        errno.EROFS: "The file system is mounted read-only: open the pool with readonly=True",
        errno.EEXIST: "Move it away, or use another name",
        errno.ENOSPC: "Free some space on the file system, or use another one",
        errno.EDQUOT: "The user's quota is used up: free some space, or ask for a larger quota",
        errno.ENOLCK: "The file system does not support locks, which a pool needs: use another "
        "one, or start its lock service",
        errno.EIO: "The device or its file system has failed: see the kernel's log (dmesg)",
        errno.EFBIG: "Use a file system and a limit (ulimit -f) that allow files of this size",
        errno.ELOOP: "The symbolic links form a loop: name the file itself",
        errno.ENAMETOOLONG: "Give it a shorter name",
        errno.EINTR: "Try again",
        errno.EBUSY: "Wait until it is no longer used, and try again",
        errno.EWOULDBLOCK: "Wait until it is no longer used, and try again",
        errno.EMLINK: "Use another file system: this one refuses a second name for a file",
        errno.EOPNOTSUPP: "Use another file system: this one does not support it",
        errno.ETXTBSY: "End the program that runs from this file, or use another name",
    }
)
_OTHER_HINT = "Check the file system and its device"


def remedy_of(number: int) -> str:
    """Return what a user can do about a call on a file that failed with an errno."""
    return _OSERROR_HINTS.get(number) or remedy_for(number) or _OTHER_HINT


def from_oserror(
    error: OSError,
    what: str,
    *,
    where: str | os.PathLike[str] | None = None,
    hint: str | None = None,
) -> PoolSetError:
    """Make the pool set error for a failed call on a pool set file or a part.

    Parameters
    ----------
    error : OSError
        The error from the system.
    what : str
        What could not be done, for example "cannot open the part".
    where : str or os.PathLike, optional
        The file.
    hint : str, optional
        What the user can do about it, if more is known than the errno.

    Returns
    -------
    PoolSetError
        An error of the kind for the errno, to be raised ``from error``.
    """
    number = error.errno or errno.EIO
    kind = _OSERROR_KINDS.get(number, PoolSetError)
    return kind(
        f"{what}: {os.strerror(number)}",
        where=where,
        hint=hint or remedy_of(number),
        errno=number,
    )


_REMEDIES: Mapping[int, str] = MappingProxyType(
    {
        errno.EMFILE: "The process has used up its descriptors: raise its limit with ulimit -n or "
        "LimitNOFILE=, or use fewer lanes",
        errno.ENFILE: "The system has used up its descriptors: raise fs.file-max",
        errno.EAGAIN: "No more processes or threads can be started: raise the limit with "
        "ulimit -u or TasksMax=, or use fewer lanes",
        errno.ENOMEM: "There is not enough memory, or not enough lockable memory (ulimit -l)",
    }
)


def remedy_for(number: int | None) -> str | None:
    """Return the remedy for a resource that has run out, by its errno; None for other errors."""
    return _REMEDIES.get(number or 0)


def shortage(error: BaseException) -> int | None:
    """Return the errno of the resource that has run out, if that is what `error` means.

    Parameters
    ----------
    error : BaseException
        An `OSError`, a `MemoryError`, the `RuntimeError` of a thread that cannot be started, or
        the `ImportError` of a library that cannot be loaded.
    """
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return errno.EAGAIN
    if isinstance(error, ImportError):
        # The dynamic loader's message ends with the system's.
        return next((n for n in _REMEDIES if str(error).endswith(os.strerror(n))), None)
    number = error.errno if isinstance(error, OSError) else None
    return number if number in _REMEDIES else None
