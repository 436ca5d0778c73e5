"""PMDK 0.1: the status numbers in answers, and the errors they stand for on either side."""

from __future__ import annotations

import enum
import errno
from typing import Final

from rpmem.control.messages import Create, Message, SetAttributes
from rpmem.errors import (
    AttributesRefused,
    ConnectFailed,
    HeaderError,
    LaneRefused,
    PoolSetBusy,
    PoolSetDenied,
    PoolSetExists,
    PoolSetMalformed,
    PoolSetNameRefused,
    PoolSetNotFound,
    PoolSetTooSmall,
    ProviderUnavailable,
    RemoteError,
    RpmemError,
    VersionMismatch,
)


class Status(enum.IntEnum):
    """The status in an answer; the names are PMDK's."""

    SUCCESS = 0
    BADPROTO = 1
    BADNAME = 2
    BADSIZE = 3
    BADNLANES = 4
    BADPROVIDER = 5
    FATAL = 6
    FATAL_CONN = 7
    BUSY = 8
    EXISTS = 9
    PROVNOSUP = 10
    NOEXIST = 11
    NOACCESS = 12
    POOL_CFG = 13


# The errno that librpmem's callers get, and the kind of error that means the same here.
_MEANING: Final[dict[Status, tuple[type[RpmemError], int, str]]] = {
    Status.BADPROTO: (VersionMismatch, errno.EPROTONOSUPPORT, "it does not speak this protocol"),
    Status.BADNAME: (PoolSetNameRefused, errno.EINVAL, "the pool set's name is not allowed"),
    Status.BADSIZE: (PoolSetTooSmall, errno.EFBIG, "the pool set is smaller than the pool"),
    Status.BADNLANES: (LaneRefused, errno.EINVAL, "the number of lanes is not allowed"),
    Status.BADPROVIDER: (ProviderUnavailable, errno.EINVAL, "it cannot use the provider"),
    Status.FATAL: (RemoteError, errno.EREMOTEIO, "a fatal error, which only its log explains"),
    Status.FATAL_CONN: (ConnectFailed, errno.ECONNABORTED, "it cannot accept connections"),
    Status.BUSY: (PoolSetBusy, errno.EBUSY, "the pool set is in use"),
    Status.EXISTS: (PoolSetExists, errno.EEXIST, "the pool set holds a pool already"),
    Status.PROVNOSUP: (ProviderUnavailable, errno.EMEDIUMTYPE, "it lacks the provider"),
    Status.NOEXIST: (PoolSetNotFound, errno.ENOENT, "the pool set or one of its parts is missing"),
    Status.NOACCESS: (PoolSetDenied, errno.EACCES, "the pool set may not be read or written"),
    Status.POOL_CFG: (
        PoolSetMalformed,
        errno.EINVAL,
        "the pool set, its headers or the attributes are not valid",
    ),
}

_OF_KIND: Final[tuple[tuple[type[RpmemError], Status], ...]] = (
    (VersionMismatch, Status.BADPROTO),
    (PoolSetNameRefused, Status.BADNAME),
    (PoolSetTooSmall, Status.BADSIZE),
    (LaneRefused, Status.BADNLANES),
    (ProviderUnavailable, Status.BADPROVIDER),
    (ConnectFailed, Status.FATAL_CONN),
    (PoolSetBusy, Status.BUSY),
    (PoolSetExists, Status.EXISTS),
    (PoolSetNotFound, Status.NOEXIST),
    (PoolSetDenied, Status.NOACCESS),
    (PoolSetMalformed, Status.POOL_CFG),
    (AttributesRefused, Status.POOL_CFG),
    (HeaderError, Status.POOL_CFG),
)

_OF_ERRNO: Final[dict[int | None, Status]] = {
    errno.EWOULDBLOCK: Status.BUSY,
    errno.EBUSY: Status.BUSY,
    errno.EEXIST: Status.EXISTS,
    errno.ENOENT: Status.NOEXIST,
    errno.EACCES: Status.NOACCESS,
    errno.EPERM: Status.NOACCESS,
    errno.EFBIG: Status.BADSIZE,
    errno.EINVAL: Status.POOL_CFG,
}


def status_of(error: BaseException) -> Status:
    """Return the status with which a target reports `error`."""
    if isinstance(error, RpmemError):
        return next((status for kind, status in _OF_KIND if isinstance(error, kind)), Status.FATAL)
    if isinstance(error, OSError):
        return _OF_ERRNO.get(error.errno, Status.FATAL)
    return Status.FATAL


def error_of(status: Status, request: Message, *, where: str) -> RpmemError:
    """Return the error for a bad status in the answer to `request`, with librpmem's errno."""
    kind, number, what = _MEANING[status]
    if status is Status.POOL_CFG and isinstance(request, SetAttributes):
        kind, what = AttributesRefused, "the attributes do not go together with the pool set"
    hint = None
    if status is Status.NOEXIST and isinstance(request, Create) and request.parts:
        hint = "PMDK's rpmemd does not write the pool set file itself: make it on the target"
    what = f"rpmemd refused: {what} (status {status:d})"
    return kind(what, where=where, hint=hint, errno=number)
