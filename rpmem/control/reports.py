"""Errors as they are reported to the other side, and as it raises them."""

from __future__ import annotations

import os
from typing import Final

from rpmem.base.remedies import remedy_for, shortage
from rpmem.errors import (
    KINDS,
    BufferRefused,
    CatalogueError,
    ClosedError,
    LaunchError,
    RemoteError,
    RpmemError,
    StaleReplica,
    TargetSyntaxError,
    from_code,
)

MAX_ERRNO: Final = 4095

# Kinds of error about this side's calls, objects and launchers.
_OURS_ALONE: Final = (
    BufferRefused,
    CatalogueError,
    ClosedError,
    LaunchError,
    StaleReplica,
    TargetSyntaxError,
)


def reported(code: str, message: str, where: str, hint: str | None, errno: int) -> RpmemError:
    """Return the error that a target reports; as a RemoteError if its kind is for this side only.

    A target must not be able to trigger our handling of our own errors.
    """
    if issubclass(KINDS.get(code, RemoteError), _OURS_ALONE):
        error = from_code(RemoteError.code, message, where=where, hint=hint, errno=errno or None)
        assert isinstance(error, RemoteError)
        error.remote_code = code
        return error
    return from_code(code, message, where=where, hint=hint, errno=errno or None)


def described(error: BaseException) -> tuple[str, int, str, str | None]:
    """Return code, errno, message and hint for the other side."""
    if isinstance(error, RpmemError):
        message = error.what if not error.where else f"{error.where}: {error.what}"
        return error.code, _wire_errno(error.errno), message, error.hint
    if isinstance(error, OSError):
        message = error.strerror or str(error) or type(error).__name__
        if error.filename is not None:
            message = f"{_file_name(error.filename)}: {message}"
        return RemoteError.code, _wire_errno(error.errno), message, remedy_for(error.errno)
    if (number := shortage(error)) is not None:
        return RemoteError.code, number, os.strerror(number), remedy_for(number)
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return RemoteError.code, RemoteError.errno, message, None


def _file_name(name: object) -> str:
    # For calls on descriptors it is a number.
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)


def _wire_errno(number: int | None) -> int:
    return number if number is not None and 0 <= number <= MAX_ERRNO else RemoteError.errno
